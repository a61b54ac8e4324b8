"""Fine-tuning as a run: goes on from a pre-trained run directory."""

from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from mpilayer.arrays import Array32
from mpilayer.config import FinetuneConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, DataError
from mpilayer.numerics.losses import check_loss
from mpilayer.optim.descent import DEFAULT_RATES
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.model import (
    check_pretrained,
    is_finetuned,
    load_stack,
    run_shapes,
    save_finetuned,
)
from mpilayer.runs.session import Session, check_range, stack_errors
from mpilayer.store.metrics import MetricsWriter
from mpilayer.train.finetune import (
    EAGER_SECONDS,
    FinetuneState,
    finetune,
)
from mpilayer.train.strata import Strata

CHECKPOINT_SECONDS = 30.0
"""Least time between two checkpoints; there is also one at the end."""


def data_of_run(directory: RunDirectory, data: Path | None) -> Path:
    """Return the data set a run was trained on, checked to be the same one.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    data : Path, optional
        Where the data set is now; where it was by default.

    Raises
    ------
    DataError
        Missing, or not the data the run was pre-trained on.
    """
    trained_on = directory.read_config().get("data", {})
    path = data or Path(trained_on.get("path", ""))
    if not path.is_file():
        raise DataError(
            f"the data set of the run must be there; {path} is no file. Say where it "
            "is now with --data FILE."
        )
    with Dataset.open(path) as dataset:
        if dataset.digest != trained_on.get("digest"):
            raise DataError(
                f"{path} must be the data set of the run, {trained_on.get('name')!r} "
                f"with digest {str(trained_on.get('digest'))[:12]}; found "
                f"{dataset.name!r} with {dataset.digest[:12]}. Give the right --data."
            )
    return path


def run_finetune(
    run: Path,
    config: FinetuneConfig,
    session: Session,
    data: Path | None = None,
    replace_finetuned: bool = False,
) -> dict[str, Any]:
    """Fine-tune a pre-trained run, on any number of ranks.

    Parameters
    ----------
    run : Path
        Directory of a pre-trained run.
    config : FinetuneConfig
        Equal on all ranks.
    session : Session
        The ranks. Collective on all of them.
    data : Path, optional
        Where the data set is now.
    replace_finetuned : bool
        Start anew from the pre-trained stack although the run was fine-tuned.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training.
    """
    comm = session.comm
    rate = config.learning_rate or DEFAULT_RATES[config.optimizer]
    config = replace(config, learning_rate=rate)
    path = comm.on_root(lambda: _check(run, config, data, replace_finetuned))
    directory = RunDirectory(run)
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    strata, train, validation = comm.everywhere(
        lambda: _read(path, directory, config, comm.rank, comm.size)
    )
    comm.on_root(lambda: _begin(directory, config))
    session.announce()
    if comm.size > config.minibatch:
        session.say(
            f"warning: {comm.size} ranks share minibatches of {config.minibatch} rows; "
            "some have nothing to do"
        )

    state = FinetuneState(stack, config)
    comm.barrier()
    began = saved = perf_counter()
    epochs = []
    # A rank that offers its core while it waits slows down those that share it.
    eager = 0.0 if session.placement.crowded else EAGER_SECONDS
    with session.display(directory, {"finetune": config.epochs}):
        for record in finetune(state, strata, train, validation, comm, eager):
            epochs.append(record)
            if comm.rank == 0:
                with MetricsWriter(directory.metrics_file("finetune")) as writer:
                    writer.write(asdict(record))
                if perf_counter() - saved > CHECKPOINT_SECONDS:
                    save_finetuned(directory, state)
                    saved = perf_counter()
    seconds = perf_counter() - began
    comm.on_root(lambda: save_finetuned(directory, state))
    errors = stack_errors(stack, path, comm)
    summary = {
        # Keys of pre-training stay; those of this step are told apart by their prefix.
        **{f"finetune_{k}": v for k, v in session.facts().items()},
        "finetune_seconds": seconds,
        "finetune_optimizer": config.optimizer,
        "finetune_epochs": state.epoch,
        "finetune_best_epoch": state.best_epoch,
        "finetune_training": sum(record.training for record in epochs),
        "finetune_allreduce": sum(record.allreduce for record in epochs),
        "finetune_evaluating": sum(record.evaluating for record in epochs),
        **{f"{split}_error": error for split, error in errors.items()},
        "finetuned": errors,
    }
    return comm.on_root(lambda: directory.write_summary(summary))


def _check(
    run: Path, config: FinetuneConfig, data: Path | None, replace_finetuned: bool
) -> Path:
    """Check all that can be known before training; on rank 0."""
    directory = RunDirectory.open(run)
    if is_finetuned(directory) and not replace_finetuned:
        raise ConfigError(
            f"{run} must not be fine-tuned yet; it is. Look at it with 'mpilayer "
            f"evaluate {run}', or start again from pre-training with --replace."
        )
    _, shapes = run_shapes(directory)
    check_loss(config.loss, shapes[0].visible)
    check_pretrained(directory)
    path = data_of_run(directory, data)
    with Dataset.open(path) as dataset:
        n_train = dataset.n_samples("train")
    if config.minibatch > n_train:
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {config.minibatch} "
            f"with {n_train} training rows. Give a smaller --minibatch."
        )
    return path


def _read(
    path: Path, directory: RunDirectory, config: FinetuneConfig, rank: int, size: int
) -> tuple[Strata, Array32, Array32]:
    """Read this rank's rows."""
    visible = run_shapes(directory)[1][0].visible
    with Dataset.open(path) as dataset:
        n_train = dataset.n_samples("train")
        strata = Strata.of_rank(n_train, config.minibatch, rank, size)
        train = dataset.rows("train", *strata.rows)
        check_range(train, visible, path)
        if "validation" not in dataset.splits:
            return strata, train, train[:0]
        bounds = shard_bounds(dataset.n_samples("validation"), size)[rank]
        return strata, train, dataset.rows("validation", *bounds)


def _begin(directory: RunDirectory, config: FinetuneConfig) -> None:
    """Forget former fine-tuning, and write down what is going to be done."""
    directory.checkpoint("finetuned").unlink(missing_ok=True)
    directory.metrics_file("finetune").unlink(missing_ok=True)
    directory.write_config({"finetune": as_values(config)})
