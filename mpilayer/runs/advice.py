"""What a user should hear of a result that could be better; pure words."""

from collections.abc import Mapping, Sequence
from math import nan

from mpilayer.config import FinetuneConfig, PretrainConfig, per_layer
from mpilayer.models.base import LayerShape
from mpilayer.optim.descent import DEFAULT_RATES

_COSTLY = 0.25
"""Part of the time in Allreduce from which on fewer ranks are worth a try."""

_LINEAR_RATE = 0.005
"""A linear code's learning rate: no sigmoid bounds it."""

_FASTER = 3
"""Times the learning rate that is worth a try where training was too slow."""

ALWAYS = {
    "classifier": "always the most frequent class",
    "regressor": "always the mean",
}
"""What predicts the same for all rows, by the predictor that must beat it."""

_CLEARLY = 0.99
"""Part of another error below which one is more than a hair's breadth better."""

_DECAYS = "--dropout or --weight-decay"
_AGAINST_OVERFITTING = (
    "more training rows",
    f"{_DECAYS}, with --replace",
    "fewer units",
)


def over_fits(
    errors: Mapping[str, float | None], usual: Mapping[str, float | None]
) -> bool:
    """Tell whether training rows are clearly better fitted than by what is usual.

    Who is worse on other rows then needs other things than more epochs.
    """
    _, error, other = _compared(errors, usual, ["train"])
    return error < _CLEARLY * other


def after_pretraining(config: PretrainConfig, over: bool) -> tuple[str, ...]:
    """Return what may make a pre-trained stack better, and whether it over-fits."""
    longer = f"pre-training anew with more --epochs than {_shown(config.epochs)}"
    against = ("more training rows", f"{_DECAYS} in fine-tuning", "fewer units")
    return ("fine-tuning", *(against if over else [longer]), *_code(config))


def after_finetuning(
    config: FinetuneConfig,
    pretraining: PretrainConfig,
    done: int,
    best: int,
    over: bool,
) -> tuple[str, ...]:
    """Return what may make a fine-tuned stack better.

    Parameters
    ----------
    config, pretraining : FinetuneConfig, PretrainConfig
        How it was trained.
    done, best : int
        Epochs, and after which of them it was best.
    over : bool
        Whether it over-fits.
    """
    code = [f"pre-training with {words}" for words in _code(pretraining)]
    if over:
        return (*_AGAINST_OVERFITTING, *code)
    return (
        *["--optimizer adam --replace"] * (config.optimizer != "adam"),
        # Else they have made it worse.
        *_longer(config, done) * (best == done),
        *code,
    ) or ("pre-training for longer", "smaller minibatches")


def worse_than_pca(
    what: str,
    shapes: Sequence[LayerShape],
    errors: Mapping[str, float | None],
    pca: Mapping[str, float | None],
    remedies: tuple[str, ...],
) -> str:
    """Say that a stack is worse than PCA, and what may help; empty if it is not.

    Parameters
    ----------
    what : str
        What was done to the stack.
    shapes : sequence of LayerShape
        Its layers. A code as wide as a row or wider makes PCA perfect by definition:
        nothing is said.
    errors, pca : mapping of str to float or None
        Reconstruction errors by split, both of the same rows; the first split counts
        that both have of test, validation and train.
    remedies : tuple of str
        What may help.
    """
    split, error, usual = _compared(errors, pca)
    if shapes[-1].n_hidden >= shapes[0].n_visible or not error > usual:
        return ""
    return (
        f"the {what} stack is worse than PCA on the {split} rows ({error:.2f} against "
        f"{usual:.2f}). {_advised(over_fits(errors, pca), 'PCA', remedies)}"
    )


def no_better_than_always(
    model: str,
    errors: Mapping[str, float | None],
    usual: Mapping[str, float | None],
    config: FinetuneConfig,
    done: int,
) -> str:
    """Say that a predictor is hardly better than a constant; empty if it clearly is.

    Parameters
    ----------
    model : str
        A key of ``ALWAYS``.
    errors, usual : mapping of str to float or None
        Of the predictor, and of what predicts the same for all rows; the first split
        counts as for ``worse_than_pca``.
    config : FinetuneConfig
        How it was trained.
    done : int
        Epochs.
    """
    split, error, other = _compared(errors, usual)
    if not error > _CLEARLY * other:
        return ""
    than = f"{'hardly' if error < other else 'no'} better than {ALWAYS[model]}"
    over = over_fits(errors, usual)
    smaller = [f"a --minibatch smaller than {config.minibatch}, with --replace"]
    slow = (*_longer(config, done), *smaller * (config.minibatch > 1))
    advised = _advised(over, "that", _AGAINST_OVERFITTING if over else slow)
    return (
        f"the {model} is {than} on the {split} rows ({error:.2f} against "
        f"{other:.2f}). {advised}"
    )


def costly_allreduce(allreduce: float, seconds: float, ranks: int, work: str) -> str:
    """Say that Allreduce took much of the time; empty if it did not.

    Parameters
    ----------
    allreduce, seconds : float
        Of rank 0 in Allreduce, and in all.
    ranks : int
        That shared the work.
    work : str
        What they shared.
    """
    share = allreduce / seconds if seconds > 0 else 0.0
    if ranks == 1 or share <= _COSTLY:
        return ""
    return (
        f"Allreduce took {share:.0%} of the time: fewer ranks than {ranks} may be "
        f"faster for {work}"
    )


def _compared(
    errors: Mapping[str, float | None],
    usual: Mapping[str, float | None],
    splits: Sequence[str] = ("test", "validation", "train"),
) -> tuple[str, float, float]:
    """Return the first split that both have, and its errors; NaN if there is none."""
    for split in splits:
        error, other = errors.get(split), usual.get(split)
        if error is not None and other is not None:
            return split, error, other
    return "", nan, nan


def _advised(over: bool, rival: str, remedies: tuple[str, ...]) -> str:
    why = f"It fits the training rows better than {rival}: over-fitting. "
    return f"{why * over}What may help: {'; '.join(remedies)}."


def _longer(config: FinetuneConfig, done: int) -> list[str]:
    """Return what helps where the last epoch was the best."""
    rate = _FASTER * (config.learning_rate or DEFAULT_RATES[config.optimizer])
    return [
        f"more --epochs than {done}, with --resume auto",
        f"a larger --learning-rate, such as {rate:g}, with --replace",
    ]


def _code(config: PretrainConfig) -> list[str]:
    if config.code == "linear":
        return []
    rates = per_layer("learning_rate", config.learning_rate, len(config.layers))
    last = min(_LINEAR_RATE, rates[-1])
    return [f"--code linear --learning-rate {_shown((*rates[:-1], last))}"]


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))
