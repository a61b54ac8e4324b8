"""What a user should hear of a result that could be better; pure words."""

from collections.abc import Mapping

from mpilayer.config import FinetuneConfig, PretrainConfig, per_layer

_COSTLY = 0.25
"""Part of the time in Allreduce from which on fewer ranks are worth a try."""

_LINEAR_RATE = 0.005
"""A linear code's learning rate: no sigmoid bounds it."""


def after_pretraining(config: PretrainConfig) -> tuple[str, ...]:
    """Return what may make a pre-trained stack better."""
    return (
        "fine-tuning",
        f"more --epochs than {_shown(config.epochs)}",
        *_code(config),
    )


def after_finetuning(
    config: FinetuneConfig, pretraining: PretrainConfig, done: int, best: int
) -> tuple[str, ...]:
    """Return what may make a fine-tuned stack better, after which epoch it was best."""
    return (
        *["--optimizer adam --replace"] * (config.optimizer != "adam"),
        # Else they have made it worse.
        *[f"more --epochs than {done}, with --resume auto"] * (best == done),
        *[f"pre-training with {words}" for words in _code(pretraining)],
    ) or ("pre-training for longer", "smaller minibatches")


def worse_than_pca(
    what: str,
    errors: Mapping[str, float | None],
    pca: Mapping[str, float | None],
    remedies: tuple[str, ...],
) -> str:
    """Say that a stack is worse than PCA, and what may help; empty if it is not.

    Parameters
    ----------
    what : str
        What was done to the stack.
    errors, pca : mapping of str to float or None
        Reconstruction errors by split, both of the same rows; the first split counts
        that both have of test, validation and train.
    remedies : tuple of str
        What may help.
    """
    pairs = {s: (errors.get(s), pca.get(s)) for s in ("test", "validation", "train")}
    for split, (error, usual) in pairs.items():
        if error is not None and usual is not None:
            return (
                f"the {what} stack is worse than PCA on the {split} rows ({error:.2f} "
                f"against {usual:.2f}). What may help: {'; '.join(remedies)}."
            ) * (error > usual)
    return ""


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


def _code(config: PretrainConfig) -> list[str]:
    if config.code == "linear":
        return []
    rates = per_layer("learning_rate", config.learning_rate, len(config.layers))
    last = min(_LINEAR_RATE, rates[-1])
    return [f"--code linear --learning-rate {_shown((*rates[:-1], last))}"]


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))
