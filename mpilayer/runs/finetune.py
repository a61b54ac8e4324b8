"""Fine-tuning as a run: goes on from a pre-trained run directory."""

from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.config import FinetuneConfig, as_values, from_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError
from mpilayer.numerics.losses import check_loss
from mpilayer.optim.descent import DEFAULT_RATES
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.keeping import remove_unfinished
from mpilayer.runs.model import (
    check_pretrained,
    finetuned_content,
    is_finetuned,
    load_stack,
    restore_finetuned,
    run_shapes,
)
from mpilayer.runs.resuming import (
    check_replicas,
    check_same,
    data_of_run,
    note_threads,
)
from mpilayer.runs.session import Session, check_range, stack_errors
from mpilayer.runs.writing import Writer
from mpilayer.store import checkpoint
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.finetune import (
    EAGER_SECONDS,
    FinetuneState,
    finetune,
)
from mpilayer.train.strata import Strata

NAME = "finetune"
"""What a run's ``complete`` says at the end."""

_HARMLESS = frozenset({"epochs", "patience"})


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
    config = _effective(config)
    directory = RunDirectory(run)
    goes_on = comm.on_root(
        lambda: _check(run, config, data, replace_finetuned, session.safety.resume)
    )
    if goes_on and comm.on_root(lambda: _has_nothing_left(directory, config)):
        session.say(f"{run} is fine-tuned to the end; there is nothing to do")
        return comm.on_root(directory.read_summary)
    path = comm.on_root(lambda: data_of_run(directory, data))
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    strata, train, validation = comm.everywhere(
        lambda: _read(path, directory, config, comm.rank, comm.size)
    )
    state, before, remark = FinetuneState(stack, config), 0.0, ""
    if goes_on:
        before, remark = comm.everywhere(lambda: restore_finetuned(directory, state))
        check_replicas(stack.parameters, comm)
    epochs = comm.on_root(lambda: _begin(directory, config, state.epoch))
    if not goes_on:
        comm.on_root(lambda: note_threads(directory, NAME, session))
    session.announce()
    if remark:
        session.say(f"warning: {remark}")
    if goes_on:
        session.say(f"going on after epoch {state.epoch}")
    if comm.size > config.minibatch:
        session.say(
            f"warning: {comm.size} ranks share minibatches of {config.minibatch} rows; "
            "some have nothing to do"
        )
    seconds = _descend(
        state, (strata, train, validation), session, directory, epochs, before
    )
    comm.on_root(finetuned_content(directory, state, seconds).save)
    errors = stack_errors(stack, path, comm)
    summary = {
        # Keys of pre-training stay; those of this step are told apart by their prefix.
        **{f"finetune_{k}": v for k, v in session.facts().items()},
        "finetune_seconds": seconds,
        "finetune_optimizer": config.optimizer,
        "finetune_epochs": state.epoch,
        "finetune_best_epoch": state.best_epoch,
        "finetune_training": sum(line["training"] for line in epochs),
        "finetune_allreduce": sum(line["allreduce"] for line in epochs),
        "finetune_evaluating": sum(line["evaluating"] for line in epochs),
        **{f"{split}_error": error for split, error in errors.items()},
        "finetuned": errors,
    }
    summary = comm.on_root(lambda: directory.write_summary(summary))
    comm.on_root(lambda: directory.set_complete(NAME))
    return summary


def finetune_config(directory: RunDirectory) -> FinetuneConfig:
    """Return the settings that fine-tuning of a run began with."""
    return from_values(FinetuneConfig, directory.read_config()[NAME])


def _effective(config: FinetuneConfig) -> FinetuneConfig:
    rate = config.learning_rate or DEFAULT_RATES[config.optimizer]
    return replace(config, learning_rate=rate)


def _descend(
    state: FinetuneState,
    rows: tuple[Strata, Array32, Array32],
    session: Session,
    directory: RunDirectory,
    epochs: list[dict[str, Any]],
    before: float,
) -> float:
    """Train to the end; return the seconds. Collective.

    Raises
    ------
    Interrupted
        On every rank, after saving.
    """
    comm = session.comm
    # A rank that offers its core while it waits slows down those that share it.
    eager = 0.0 if session.placement.crowded else EAGER_SECONDS
    comm.barrier()
    origin = perf_counter() - before
    saved, saved_epoch, disk = perf_counter(), state.epoch, Writer()
    with (
        session.display(directory, {NAME: state.config.epochs}),
        session.listening(),
        session.impatient(),
    ):
        for record in finetune(state, *rows, comm, eager):
            now = perf_counter()
            epochs.append(asdict(record))
            if comm.rank == 0:
                with MetricsWriter(directory.metrics_file(NAME)) as writer:
                    writer.write(asdict(record))
            unit = record.training + record.allreduce + record.evaluating
            stops = np.array([float(session.must_stop(unit))])
            stopping = bool(sum_over_ranks(comm, stops)[0])
            due = session.is_due(state.epoch - saved_epoch, now - saved)
            if comm.rank == 0 and (stopping or due):
                disk.start(finetuned_content(directory, state, now - origin).save)
                saved, saved_epoch = perf_counter(), state.epoch
            if stopping and state.epoch < state.config.epochs:
                disk.finish()
                comm.barrier()
                raise session.interrupted(directory)
        disk.finish()
    return perf_counter() - origin


def _has_nothing_left(directory: RunDirectory, config: FinetuneConfig) -> bool:
    done = int(directory.read_summary().get("finetune_epochs", 0))
    before = finetune_config(directory)
    more = config.epochs > done and config.epochs != before.epochs
    return directory.is_complete(NAME) and not more


def _check(
    run: Path,
    config: FinetuneConfig,
    data: Path | None,
    replace_finetuned: bool,
    resume: bool,
) -> bool:
    """Check all that can be known before training; on rank 0.

    Returns
    -------
    bool
        The run was fine-tuned for some epochs, and goes on.
    """
    directory = RunDirectory.open(run)
    goes_on = resume and not replace_finetuned and is_finetuned(directory)
    if goes_on:
        check_same(finetune_config(directory), config, _HARMLESS)
    elif is_finetuned(directory) and not replace_finetuned:
        raise ConfigError(
            f"{run} must not be fine-tuned yet; it is. Look at it with 'mpilayer "
            f"evaluate {run}', or start again from pre-training with --replace."
        )
    check_pretrained(directory)
    _, shapes = run_shapes(directory)
    check_loss(config.loss, shapes[0].visible)
    path = data_of_run(directory, data)
    with Dataset.open(path) as dataset:
        n_train = dataset.n_samples("train")
    if config.minibatch > n_train:
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {config.minibatch} "
            f"with {n_train} training rows. Give a smaller --minibatch."
        )
    return goes_on


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


def _begin(
    directory: RunDirectory, config: FinetuneConfig, epoch: int
) -> list[dict[str, Any]]:
    """Forget what came after an epoch; return the metrics up to it.

    Also writes down what is going to be done. On rank 0.
    """
    remove_unfinished(directory)
    if epoch == 0:
        checkpoint.remove(directory.checkpoint("finetuned"))
    lines = keep_until(directory.metrics_file(NAME), "epoch", epoch)
    directory.set_complete(NAME, False)
    directory.write_config({NAME: as_values(config)})
    return lines
