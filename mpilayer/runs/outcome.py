"""What a training has come to: records, times, and the summary of each command."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array64
from mpilayer.config import PretrainConfig
from mpilayer.models.stack import Predictor
from mpilayer.runs import advice
from mpilayer.runs.checkpoints import Cut
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.evaluate import beside_rival, confusion_of, errors_of
from mpilayer.runs.model import load_stack, run_shapes
from mpilayer.runs.monitor import stack_over_time
from mpilayer.runs.session import Session, finite
from mpilayer.runs.tasks import SPARSE, Task
from mpilayer.store.metrics import MetricsReader, keep_until
from mpilayer.train.finetune import FinetuneState
from mpilayer.train.record import KINDS, EpochRecord, team_of
from mpilayer.train.schedule import Schedule, finish_times
from mpilayer.train.sparse.descent import Descent
from mpilayer.train.sparse.firing import dead_units

# --- what pre-training has done


@dataclass(frozen=True)
class LayerOutcome:
    """What a rank tells the others about one of its layers."""

    rank: int
    records: list[EpochRecord]
    digest: str
    used: tuple[int, ...]
    dropped: tuple[int, ...]

    def facts(self, index: int) -> dict[str, Any]:
        """Return what the summary says of the layer: errors, and seconds."""
        last, team = self.records[-1] if self.records else None, team_of(self.records)
        return {
            "layer": index + 1,
            "rank": self.rank,
            "epochs": len(self.records),
            "digest": self.digest,
            "train_error": finite(last.train_error) if last else None,
            "validation_error": finite(last.validation_error) if last else None,
            **{kind: sum(r.seconds[kind] for r in self.records) for kind in KINDS},
            **({"team": team} if team else {}),
        }


def recorded_table(config: PretrainConfig, layers: Sequence[LayerOutcome]) -> Schedule:
    """Return the table that an asynchronous run has filled."""
    names = ("end", "cut_short", "activations")
    return Schedule(
        "async",
        tuple(layer.used for layer in layers),
        config.stipulated_epochs,
        dropped=tuple(layer.dropped for layer in layers),
        settings={
            "extra_epochs": list(config.extra),
            **{name: getattr(config, name) for name in names},
        },
    )


def former_records(directory: RunDirectory, cut: Cut) -> dict[int, list[EpochRecord]]:
    """Return each layer's records up to the cut; forget later ones. On rank 0."""
    known = {item.name for item in fields(EpochRecord)}

    def record(line: Mapping[str, Any], index: int) -> EpochRecord:
        values: dict[str, Any] = {name: line[name] for name in known & line.keys()}
        values = {k: math.nan if v is None else v for k, v in values.items()}
        return EpochRecord(**{**values, "layer": index})

    former = {}
    for index, candidate in enumerate(cut.candidates):
        path = directory.metrics_file(f"layer-{index + 1}")
        lines = keep_until(path, "epoch", candidate.epoch)
        former[index] = [record(line, index) for line in lines]
    return former


def conclude_pretraining(
    directory: RunDirectory,
    session: Session,
    data: Path,
    config: PretrainConfig,
    table: Schedule | None,
    layers: Sequence[LayerOutcome],
    seconds: float,
) -> dict[str, Any]:
    """Measure the stack beside PCA; write and return the summary. Collective.

    The schedule, and the error of the stack over time, are written, too.
    """
    comm = session.comm
    schedule = table or recorded_table(config, layers)
    comm.on_root(lambda: directory.write_table(schedule))
    short = short_of_epochs(config, schedule)
    session.warn(short)
    stack = comm.everywhere(lambda: load_stack(directory, pretrained=True))
    errors, pca = beside_rival(stack, data, data, session)
    remedies = advice.after_pretraining(config, advice.over_fits(errors, pca))
    worse = advice.worse_than_pca("pre-trained", stack.shapes, errors, pca, remedies)
    session.warn(worse)
    times = [layer.facts(index) for index, layer in enumerate(layers)]
    waiting = advice.mostly_at_barriers([own.get("team", ()) for own in times])
    session.warn(waiting)
    summary = {
        **session.facts(),
        "schedule": config.schedule,
        "epochs": list(schedule.epochs),
        "short_of_epochs": short,
        "pretrain_seconds": seconds,
        "simulated_seconds": _simulated_seconds(schedule, times),
        "finetune_seconds": None,
        **{f"{split}_error": error for split, error in errors.items()},
        "pretrained": errors,
        "pca": pca,
        "worse_than_pca": worse,
        "mostly_at_barriers": waiting,
        "layers": times,
    }
    written = comm.on_root(lambda: directory.write_summary(summary))
    records = [layer.records for layer in layers]
    stack_over_time(directory, data, config, stack.shapes, records, comm)
    return written


def short_of_epochs(config: PretrainConfig, schedule: Schedule) -> str:
    """Say which layers the end of the first one has stopped too early; empty for none.

    Only ``--end first-layer`` does that; see ``simulate``.
    """
    if config.schedule not in ("async", "simulate"):
        return ""
    pairs = zip(schedule.epochs, config.stipulated_epochs, strict=True)
    short = [
        f"layer {index} {done} of {asked}"
        for index, (done, asked) in enumerate(pairs, start=1)
        if done < asked
    ]
    if not short:
        return ""
    return (
        f"--end first-layer has left layers short of their epochs: {', '.join(short)}. "
        "Upper layers that hardly trained spoil the code; --end stipulated waits for "
        "them."
    )


def _simulated_seconds(schedule: Schedule, times: Sequence[dict[str, Any]]) -> float:
    """Return the seconds this table would take on a machine with more cores.

    Of a simulated table the end of its virtual clock, whose unit is the measured epoch
    of the first layer; of any other table the time with a core for each layer, from the
    measured epoch of each. Messages take no time.
    """
    kinds = ("training", "transform", "monitor")
    costs = [
        float(sum(layer[kind] for kind in kinds) / max(1, layer["epochs"]))
        for layer in times
    ]
    if schedule.virtual_end:
        return costs[0] * max(schedule.virtual_end)
    return max(finish_times(schedule, costs))


# --- what fine-tuning has reached


def conclude_finetuning(
    directory: RunDirectory,
    session: Session,
    data: Path,
    task: Task,
    state: FinetuneState,
    lines: Sequence[Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """Measure the trained model; write and return the summary. Collective.

    ``lines`` are the metrics of all epochs.
    """
    comm, config, name = session.comm, state.config, task.name
    parts = ("training", "allreduce", "evaluating")
    times = {part: sum(line[part] for line in lines) for part in parts}
    work = f"minibatches of {config.minibatch} rows"
    what = "Allreduce" if config.parallel == "rows" else "waiting for other ranks"
    waited = times["allreduce"]
    session.warn(advice.costly_allreduce(waited, seconds, comm.size, work, what))
    if isinstance(state.stack, Predictor):
        own = _of_predictor(session, state, state.stack, data, task)
    else:
        own = _of_autoencoder(directory, session, state, data)
    own_times = {
        **session.facts(),
        "seconds": seconds,
        "optimizer": config.optimizer,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        **times,
    }
    # Keys of pre-training stay; those of this step are told by their prefix.
    summary = {**{f"{name}_{key}": value for key, value in own_times.items()}, **own}
    return comm.on_root(lambda: directory.write_summary(summary))


def _of_autoencoder(
    directory: RunDirectory, session: Session, state: FinetuneState, data: Path
) -> dict[str, Any]:
    """Return the errors of the autoencoder, beside PCA. Collective."""
    shapes, errors = state.stack.shapes, errors_of(state.stack, data, session.comm)

    def advise() -> str:
        pca = directory.read_summary().get("pca") or {}
        remedies = advice.after_finetuning(
            state.config,
            run_shapes(directory)[0],
            state.epoch,
            state.best_epoch,
            advice.over_fits(errors, pca),
        )
        return advice.worse_than_pca("fine-tuned", shapes, errors, pca, remedies)

    worse = session.comm.on_root(advise)
    session.warn(worse)
    own = {f"{split}_error": error for split, error in errors.items()}
    return {**own, "finetuned": errors, "worse_than_pca": worse}


def _of_predictor(
    session: Session, state: FinetuneState, model: Predictor, data: Path, task: Task
) -> dict[str, Any]:
    """Return the errors of a predictor, beside what predicts always the same."""
    errors, usual = beside_rival(model, data, data, session)
    worse = advice.no_better_than_always(
        task.model, errors, usual, state.config, state.epoch
    )
    session.warn(worse)
    found = {f"{task.name}_error": errors, f"{task.name}_no_better": worse}
    if not len(model.classes):
        return found
    split = "train" if errors["test"] is None else "test"
    table = confusion_of(model, data, split, session.comm)
    return {**found, **table, "confusion_split": split}


# --- what a sparse training has reached


def conclude_sparse(
    directory: RunDirectory, session: Session, descent: Descent, seconds: float
) -> dict[str, Any]:
    """Measure the last iteration; write and return the summary. Collective."""
    cost, config, state = descent.cost, descent.config, descent.state
    comm = session.comm
    if state is None:
        raise RuntimeError("a descent without evaluations")
    dead, final = dead_units(cost, state.position), cost.measure(state.position)

    def times() -> dict[str, float]:
        # Of rank 0, in all evaluations.
        lines = list(MetricsReader(directory.metrics_file(SPARSE)).new_lines())
        kinds = ("computing", "allreduce")
        return {f"{kind}_seconds": sum(line[kind] for line in lines) for kind in kinds}

    spent, warning = comm.on_root(times), dead.warning(final)
    allreduce, work = spent["allreduce_seconds"], f"{cost.n_rows} rows"
    session.warn(warning)
    session.warn(advice.costly_allreduce(allreduce, seconds, comm.size, work))
    terms = ("cost", "exact_cost", "reconstruction", "decay", "sparsity")
    summary = {
        **session.facts(),
        "kl": config.kl,
        "optimizer": config.optimizer,
        **{name: finite(getattr(final, name)) for name in (*terms, "gradient_norm")},
        "evaluations": cost.evaluations,
        "iterations": state.iteration,
        "stopped_by": descent.stopped_by,
        "dead_units": dead.units,
        "warning": warning,
        "mean_activation": float(cost.mean_activation.mean()),
        "mean_activations": cost.mean_activation.tolist(),
        "digest": cost.model.parameters.digest(),
        "n_visible": cost.model.shape.n_visible,
        "n_hidden": cost.model.shape.n_hidden,
        "n_rows": cost.n_rows,
        "seconds": seconds,
        **spent,
    }
    return comm.on_root(lambda: directory.write_summary(summary))


def filters(weights: Array64) -> AnyArray:
    """Return the input of norm 1 that each hidden unit responds to most.

    Parameters
    ----------
    weights : ndarray (n_visible, n_hidden)
        W₁.

    Returns
    -------
    ndarray (n_hidden, n_visible), or (n_hidden, size, size) of square patches
    """
    norms = np.maximum(np.linalg.norm(weights, axis=0), np.finfo(np.float64).tiny)
    rows: AnyArray = (weights / norms).T.astype(np.float32)
    size = round(rows.shape[1] ** 0.5)
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] else rows
