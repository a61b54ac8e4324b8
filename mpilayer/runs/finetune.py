"""Fine-tuning as a run: goes on from a pre-trained run directory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mpilayer.arrays import Array32
from mpilayer.config import FinetuneConfig, as_values
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, TrainingError
from mpilayer.models.stack import DeepAutoencoder, Predictor, Stack
from mpilayer.numerics.losses import check_loss
from mpilayer.optim.descent import DEFAULT_RATES
from mpilayer.partition import shard_bounds
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.holding import holding
from mpilayer.runs.keeping import remove_unfinished
from mpilayer.runs.model import (
    check_pretrained,
    load_stack,
    progress,
    restore,
    run_shapes,
    saving,
)
from mpilayer.runs.resuming import (
    check_replicas,
    check_same,
    data_of_run,
    launch_facts,
)
from mpilayer.runs.rows import (
    check_all_labels,
    check_minibatch,
    check_range,
    classes_of,
    labelled_splits,
    read_labels,
)
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import TASKS
from mpilayer.runs.tuned import summarize
from mpilayer.runs.writing import Writer
from mpilayer.store import checkpoint
from mpilayer.store.metrics import MetricsWriter, keep_until
from mpilayer.train.evaluate import sum_over_ranks
from mpilayer.train.finetune import (
    FinetuneState,
    finetune,
    random_weights,
)
from mpilayer.train.labels import targets
from mpilayer.train.strata import Strata
from mpilayer.train.sums import EAGER_SECONDS

NAME = TASKS["autoencode"].name
"""What a run's ``complete`` says at the end of its autoencoder's fine-tuning."""

_HARMLESS = frozenset({"epochs", "patience"})


def run_finetune(
    run: Path,
    config: FinetuneConfig,
    session: Session,
    data: Path | None = None,
    replace_finetuned: bool = False,
) -> dict[str, Any]:
    """Fine-tune a pre-trained run for one of the tasks, on any number of ranks.

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
        Start anew from the pre-trained stack although the run was fine-tuned for this
        task. What other tasks have left stays.

    Returns
    -------
    dict
        The run's summary.

    Raises
    ------
    MpilayerError
        On every rank, before training.
    """
    session.comm.on_root(lambda: RunDirectory.open(run))
    with holding(run, session):
        return _finetune(run, _effective(config), session, data, replace_finetuned)


def _finetune(
    run: Path,
    config: FinetuneConfig,
    session: Session,
    data: Path | None,
    replace_finetuned: bool,
) -> dict[str, Any]:
    """Begin, or go on, and train to the end. Collective."""
    comm = session.comm
    directory, task = RunDirectory(run), TASKS[config.task]
    goes_on, path = comm.on_root(
        lambda: _check(run, config, data, replace_finetuned, session.safety.resume)
    )
    end = comm.on_root(lambda: _end_of(directory, config)) if goes_on else ""
    if end:
        session.say(f"{task.name} of {run} is at its end; {end}")
        return comm.on_root(directory.read_summary)
    stack = comm.everywhere(lambda: _new_stack(path, directory, config))
    rows = comm.everywhere(
        lambda: _read(path, stack, config.minibatch, comm.rank, comm.size)
    )
    state, before, remark = FinetuneState(stack, config), 0.0, ""
    if goes_on:
        _, numbers, remark = comm.everywhere(
            lambda: restore(directory.checkpoint(task.model), state)
        )
        before = float(numbers["seconds"])
        check_replicas(stack.parameters, comm)
    launch = {} if goes_on else launch_facts(task.name, session)
    epochs = comm.on_root(lambda: _begin(directory, config, state.epoch, launch))
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
    seconds = _descend(state, rows, session, directory, epochs, before)
    comm.on_root(_saving(directory, state, seconds))
    summary = summarize(directory, state, path, session, epochs, seconds)
    summary = comm.on_root(lambda: directory.write_summary(summary))
    comm.on_root(lambda: directory.set_complete(task.name))
    return summary


def finetune_config(directory: RunDirectory) -> FinetuneConfig:
    """Return the settings that fine-tuning of a run's autoencoder began with."""
    return TASKS["autoencode"].config(directory)


def _effective(config: FinetuneConfig) -> FinetuneConfig:
    rate = config.learning_rate or DEFAULT_RATES[config.optimizer]
    loss = "cross-entropy" if config.task == "classify" else config.loss
    return replace(config, learning_rate=rate, loss=loss)


def _new_stack(path: Path, directory: RunDirectory, config: FinetuneConfig) -> Stack:
    """Return what is going to be trained, as it is before the first epoch. Local."""
    shapes = run_shapes(directory)[1]
    if config.task == "autoencode":
        if not config.from_scratch:
            return load_stack(directory, pretrained=True)
        stack = DeepAutoencoder(shapes)
        random_weights(stack, config.seed)
        return stack
    with Dataset.open(path) as dataset:
        labels = read_labels(dataset, "train")
    model = Predictor(shapes, classes_of(labels, config.task))
    random_weights(model, config.seed, 0 if config.from_scratch else len(shapes))
    if not config.from_scratch:
        model.take_encoder(load_stack(directory, pretrained=True))
    if config.task == "regress":
        # Numbers may lie far from zero; the weights are for what differs.
        model.parameters[f"bias_{len(shapes)}"][:] = labels.mean(dtype=np.float64)
    return model


@dataclass(frozen=True)
class _Rows:
    """What a rank trains and measures on; see ``finetune``."""

    strata: Strata
    train: Array32
    validation: Array32
    targets: tuple[Array32, Array32] | None = None


def _descend(
    state: FinetuneState,
    rows: _Rows,
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
    TrainingError
        On every rank, after saving what the last finite epoch has left.
    """
    comm, name = session.comm, TASKS[state.config.task].name
    # A rank that offers its core while it waits slows down those that share it.
    eager = 0.0 if session.placement.crowded else EAGER_SECONDS
    comm.barrier()
    origin = perf_counter() - before
    saved, saved_epoch, disk = perf_counter(), state.epoch, Writer()
    finite: Callable[[], None] | None = None
    with (
        session.display(directory, {name: state.config.epochs}),
        session.listening(),
    ):
        try:
            for record in finetune(
                state,
                rows.strata,
                rows.train,
                rows.validation,
                comm,
                eager,
                rows.targets,
            ):
                now = perf_counter()
                epochs.append(asdict(record))
                if comm.rank == 0:
                    with MetricsWriter(directory.metrics_file(name)) as writer:
                        writer.write(asdict(record))
                unit = record.training + record.allreduce + record.evaluating
                stops = np.array([float(session.must_stop(unit))])
                stopping = bool(sum_over_ranks(comm, stops)[0])
                due = session.is_due(state.epoch - saved_epoch, now - saved)
                if comm.rank == 0:
                    finite = _saving(directory, state, now - origin)
                    if stopping or due:
                        disk.start(finite)
                        saved, saved_epoch = perf_counter(), state.epoch
                if stopping and state.epoch < state.config.epochs:
                    disk.finish()
                    comm.barrier()
                    raise session.interrupted(directory)
        except TrainingError:
            disk.finish()
            if finite is not None:
                finite()
            raise
        disk.finish()
    return perf_counter() - origin


def _saving(
    directory: RunDirectory, state: FinetuneState, seconds: float
) -> Callable[[], None]:
    """Return what writes the checkpoint. Local."""
    model = TASKS[state.config.task].model
    path = directory.checkpoint(model)
    return saving(path, state, keep=True, content=model, seconds=seconds)


def _end_of(directory: RunDirectory, config: FinetuneConfig) -> str:
    """Say why a task has nothing left to do; empty if it has. On rank 0.

    With more epochs, or patience, it goes on from the last ones: nothing that was done
    depends on how many were to come.
    """
    name = TASKS[config.task].name
    if not directory.is_complete(name):
        return ""
    summary = directory.read_summary()
    done = int(summary.get(f"{name}_epochs", 0))
    in_vain = done - int(summary.get(f"{name}_best_epoch", 0))
    if done >= config.epochs:
        return "there is nothing to do"
    if 0 < config.patience <= in_vain:
        return (
            f"the last {in_vain} of its {done} epochs have not made it better. Go on "
            f"with a --patience of more than {in_vain}"
        )
    return ""


def _check(
    run: Path,
    config: FinetuneConfig,
    data: Path | None,
    replace_finetuned: bool,
    resume: bool,
) -> tuple[bool, Path]:
    """Check all that can be known before training; on rank 0.

    Returns
    -------
    bool, Path
        Whether the run was fine-tuned for some epochs, and goes on; its data set.
    """
    directory, task = RunDirectory.open(run), TASKS[config.task]
    trained = task.is_trained(directory)
    goes_on = resume and not replace_finetuned and trained
    if goes_on:
        check_same(task.config(directory), config, _HARMLESS)
    elif trained and not replace_finetuned:
        if not directory.is_complete(task.name):
            raise ConfigError(
                f"{task.words} of {run} must go on, or begin anew; it was interrupted "
                f"after epoch {progress(directory, task)}. Go on with 'mpilayer "
                f"resume {run}', or start again from the pre-trained stack with "
                "--replace."
            )
        model = "fine-tuned" if task.model == "finetuned" else f"a {task.model}"
        raise ConfigError(
            f"{run} must not be {model} yet; it is. Look at it with 'mpilayer "
            f"evaluate {run}', go on with more --epochs and --resume auto, or start "
            "again from the pre-trained stack with --replace."
        )
    check_pretrained(directory, weights=not config.from_scratch)
    _, shapes = run_shapes(directory)
    if config.task == "autoencode":
        check_loss(config.loss, shapes[0].visible)
    path = data_of_run(directory, data)
    with Dataset.open(path) as dataset:
        n_train = dataset.n_samples("train")
        if config.task != "autoencode":
            check_all_labels(dataset, config.task)
    check_minibatch(config.minibatch, n_train)
    return goes_on, path


def _read(path: Path, stack: Stack, minibatch: int, rank: int, size: int) -> _Rows:
    """Read this rank's rows, and their labels for a predictor."""
    with Dataset.open(path) as dataset:
        strata = Strata.of_rank(dataset.n_samples("train"), minibatch, rank, size)
        train = dataset.rows("train", *strata.rows)
        check_range(train, stack.shapes[0].visible, path)
        part = _validation_part(dataset, stack, rank, size)
        validation = dataset.rows("validation", *part) if part else train[:0]
        if not isinstance(stack, Predictor):
            return _Rows(strata, train, validation)
        wanted = targets(read_labels(dataset, "train", *strata.rows), stack.classes)
        if part is None:
            return _Rows(strata, train, validation, (wanted, wanted[:0]))
        labels = read_labels(dataset, "validation", *part)
        return _Rows(
            strata, train, validation, (wanted, targets(labels, stack.classes))
        )


def _validation_part(
    dataset: Dataset, stack: Stack, rank: int, size: int
) -> tuple[int, int] | None:
    """Return this rank's validation rows, None if there are none of use."""
    predicts = isinstance(stack, Predictor)
    if "validation" not in (labelled_splits(dataset) if predicts else dataset.splits):
        return None
    return shard_bounds(dataset.n_samples("validation"), size)[rank]


def _begin(
    directory: RunDirectory, config: FinetuneConfig, epoch: int, launch: dict[str, Any]
) -> list[dict[str, Any]]:
    """Forget what came after an epoch; return the metrics up to it.

    Also writes down what is going to be done, and how it was launched if it is new. On
    rank 0.
    """
    task = TASKS[config.task]
    # First: what is removed below must not pass for complete.
    directory.set_complete(task.name, False)
    remove_unfinished(directory)
    path = directory.checkpoint(task.model)
    if epoch == 0:
        checkpoint.remove(path)
    else:
        checkpoint.forget_damaged(path)
    lines = keep_until(directory.metrics_file(task.name), "epoch", epoch)
    former = directory.read_config().get("launch", {})
    # In one step: who finds the settings finds the threads that go with them.
    directory.write_config(
        {task.name: as_values(config), "launch": {**former, **launch}}
    )
    return lines
