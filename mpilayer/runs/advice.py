"""What a user should hear of a result that could be better; pure words."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import TypeAlias

from mpilayer.config import FinetuneConfig, PretrainConfig, per_layer
from mpilayer.models.base import LayerShape
from mpilayer.optim.course import BY_THE_END
from mpilayer.optim.minibatch import DEFAULT_RATES
from mpilayer.train.record import at_barriers

Errors: TypeAlias = Mapping[str, float | None]
"""Split to the error on it, None where there is none."""

ALWAYS = {
    "classifier": "always the most frequent class",
    "regressor": "always the mean",
}
"""What predicts the same for all rows, by the predictor that must beat it."""

# Part of the time in Allreduce from which on fewer ranks are worth a try.
_COSTLY = 0.25
# Part of a team's training at barriers from which on it is too large.
_IDLE = 0.5
# A linear code's learning rate: no sigmoid bounds it.
_LINEAR_RATE = 0.005
# Times the learning rate that is worth a try where training was too slow.
_FASTER = 3
# Part of another error below which one is more than a hair's breadth better.
_CLEARLY = 0.99

_DECAYS = "--dropout or --weight-decay"
_AGAINST_OVERFITTING = (
    "more training rows",
    f"{_DECAYS}, with --replace",
    "fewer units",
)


def over_fits(errors: Errors, usual: Errors) -> bool:
    """Tell whether training rows are clearly better fitted than by what is usual.

    Who is worse on other rows then needs other things than more epochs.
    """
    _, error, other = _compared(errors, usual, ["train"])
    return error < _CLEARLY * other


def after_pretraining(config: PretrainConfig, over: bool) -> tuple[str, ...]:
    """Return what may make a pre-trained stack better, and whether it over-fits."""
    remedies = [f"pre-training anew with more --epochs than {_shown(config.epochs)}"]
    if over:
        remedies = ["more training rows", f"{_DECAYS} in fine-tuning", "fewer units"]
    return ("fine-tuning", *remedies, *_linear_code(config))


def after_finetuning(
    config: FinetuneConfig,
    pretraining: PretrainConfig,
    done: int,
    best: int,
    over: bool,
) -> tuple[str, ...]:
    """Return what may make a stack better that was best after one of its epochs."""
    remedies: list[str] = []
    if over:
        remedies += _AGAINST_OVERFITTING
    elif config.optimizer != "adam":
        remedies.append("--optimizer adam --replace")
    if not over and best == done:  # else further epochs have made it worse
        remedies += _longer(config, done)
    remedies += [f"pre-training with {words}" for words in _linear_code(pretraining)]
    return tuple(remedies or ["pre-training for longer", "smaller minibatches"])


def worse_than_pca(
    what: str,
    shapes: Sequence[LayerShape],
    errors: Errors,
    pca: Errors,
    remedies: Sequence[str],
) -> str:
    """Say that a stack is worse than PCA, and what may help; empty if it is not.

    The first split counts that both have of test, validation and train. A code as wide
    as a row or wider makes PCA perfect by definition: nothing is said. ``what`` was
    done to the stack.
    """
    _, error, usual = _compared(errors, pca)
    if shapes[-1].n_hidden >= shapes[0].n_visible or not error > usual:
        return ""
    return _told(f"the {what} stack is worse than PCA", "PCA", errors, pca, remedies)


def no_better_than_always(
    model: str, errors: Errors, usual: Errors, config: FinetuneConfig, done: int
) -> str:
    """Say that a predictor, a key of ``ALWAYS``, is hardly better than that.

    Empty if it clearly is; the first split counts as for ``worse_than_pca``.
    """
    _, error, other = _compared(errors, usual)
    if not error > _CLEARLY * other:
        return ""
    remedies = list(_AGAINST_OVERFITTING)
    if not over_fits(errors, usual):
        remedies = _longer(config, done)
        if config.minibatch > 1:
            smaller = f"a --minibatch smaller than {config.minibatch}, with --replace"
            remedies.append(smaller)
    how = "hardly" if error < other else "no"
    found = f"the {model} is {how} better than {ALWAYS[model]}"
    return _told(found, "that", errors, usual, remedies)


def costly_allreduce(
    allreduce: float, seconds: float, ranks: int, work: str, what: str = "Allreduce"
) -> str:
    """Say that Allreduce took much of the seconds of rank 0; empty if it did not."""
    share = allreduce / seconds if seconds > 0 else 0.0
    if ranks == 1 or share <= _COSTLY:
        return ""
    return (
        f"{what} took {share:.0%} of the time: fewer ranks than {ranks} may be "
        f"faster for {work}"
    )


def mostly_at_barriers(teams: Sequence[Sequence[Sequence[float]]]) -> str:
    """Say which layers' teams (see ``at_barriers``) mostly waited; empty if none."""
    found = [
        f"{at_barriers(team):.0%} in layer {index}"
        for index, team in enumerate(teams, start=1)
        if at_barriers(team) > _IDLE
    ]
    if not found:
        return ""
    return (
        "teams mostly waited at barriers, for their slowest rank or for a core: "
        f"{', '.join(found)} of training. Fewer ranks may be as fast; --layout says "
        "which layers have how many."
    )


def _compared(
    errors: Errors,
    usual: Errors,
    splits: Sequence[str] = ("test", "validation", "train"),
) -> tuple[str, float, float]:
    """Return the first split that both have, and its errors; NaN if there is none."""
    for split in splits:
        error, other = errors.get(split), usual.get(split)
        if error is not None and other is not None:
            return split, error, other
    return "", nan, nan


def _told(
    found: str, rival: str, errors: Errors, usual: Errors, remedies: Sequence[str]
) -> str:
    split, error, other = _compared(errors, usual)
    why = ""
    if over_fits(errors, usual):
        why = f"It fits the training rows better than {rival}: over-fitting. "
    return (
        f"{found} on the {split} rows ({error:.2f} against {other:.2f}). {why}What may "
        f"help: {'; '.join(remedies)}."
    )


def _longer(config: FinetuneConfig, done: int) -> list[str]:
    """Return what helps where the last epoch was the best."""
    rate = _FASTER * (config.learning_rate or DEFAULT_RATES[config.optimizer])
    anew = config.learning_rate_schedule in BY_THE_END
    return [
        f"more --epochs than {done}, with {'--replace' if anew else '--resume auto'}",
        f"a larger --learning-rate, such as {rate:g}, with --replace",
    ]


def _linear_code(config: PretrainConfig) -> list[str]:
    if config.code == "linear":
        return []
    rates = per_layer("learning_rate", config.learning_rate, len(config.layers))
    last = min(_LINEAR_RATE, rates[-1])
    return [f"--code linear --learning-rate {_shown((*rates[:-1], last))}"]


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))
