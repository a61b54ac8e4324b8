"""Checkpoints of a run: written while it trains, found again when it goes on."""

import math
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.config import PretrainConfig, as_values, flag
from mpilayer.errors import CheckpointError, ConfigError, MpilayerError
from mpilayer.parallel.comm import wait_until
from mpilayer.parallel.notice import Notice
from mpilayer.runs.directory import LOCK, PREPARATION, RunDirectory, remove
from mpilayer.runs.session import Session
from mpilayer.store import checkpoint
from mpilayer.store.metrics import keep_until
from mpilayer.train.layer import LayerState
from mpilayer.train.plans import BEGINNING, Candidate, Plan, plan_of
from mpilayer.train.pretrain import Keeper, Snapshot
from mpilayer.train.record import EpochRecord
from mpilayer.train.restart import newest_cut, outputs_again, worth_keeping
from mpilayer.train.schedule import Schedule

_UNFINISHED = re.compile(r"\.(config\.toml|(preparation|schedule)\.json)\.\d+\.tmp")


class State(Protocol):
    """What a checkpoint holds: it says itself what that is, and takes it back."""

    def arrays(self) -> Mapping[str, AnyArray]:
        """Return arrays by name; nothing changes them any more."""

    def numbers(self) -> Mapping[str, Any]:
        """Return numbers by name."""

    def restore(
        self, arrays: Mapping[str, AnyArray], numbers: Mapping[str, Any]
    ) -> None:
        """Go where the state with these ``arrays()`` and ``numbers()`` was."""


def saving(
    path: Path, *states: State | Snapshot, keep: bool = False, **facts: Any
) -> Callable[[], None]:
    """Return what writes states as they are now, in any thread and at any time. Local.

    ``facts`` stand beside their numbers; ``keep`` as ``checkpoint.save`` takes it.
    """
    arrays: dict[str, AnyArray] = {}
    numbers = dict(facts)
    for state in states:
        arrays |= state.arrays()
        numbers |= state.numbers()
    return partial(checkpoint.save, path, arrays, numbers, keep)


def restore(
    path: Path, state: State
) -> tuple[dict[str, AnyArray], dict[str, Any], str]:
    """Put a state where its newest whole checkpoint is. Local.

    Returns all that it holds, and a remark if the newest file was damaged.
    CheckpointError: none is whole, or it is of another model.
    """
    arrays, numbers, remark = checkpoint.load_newest(path)
    for name, own in state.arrays().items():
        checkpoint.fill(own, arrays, name, path)  # only for its checks
    state.restore(arrays, numbers)
    return arrays, numbers, remark


class Saver:
    """Writes one checkpoint at a time, in a thread, while training goes on. Local.

    Give it copies. ``done`` epochs or iterations are saved already.
    """

    def __init__(self, session: Session, done: int = 0) -> None:
        self._session, self._done = session, done
        self._last = perf_counter()
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def is_due(self, done: int) -> bool:
        """Tell whether it is time to save, after so many epochs or iterations."""
        return self._session.is_due(done - self._done, perf_counter() - self._last)

    def note(self, done: int) -> None:
        """Count epochs and time from here."""
        self._done, self._last = done, perf_counter()

    def start(self, write: Callable[[], None]) -> None:
        """Start to write, when the last is done; see ``finish``."""
        self.finish()
        self._under_way = self._thread.submit(write)

    def finish(self) -> None:
        """Wait until everything is written; raise what the last writing has raised."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            # Not by its lock, in which a rank would be deaf to signals, and silent.
            wait_until(under_way.done)
            under_way.result()


class LayerKeeper(Keeper):
    """Saves the layers of a rank when it is due, and hears requests to end.

    A layer that others wait for shall not wait for a disk.
    """

    def __init__(
        self,
        directory: RunDirectory,
        session: Session,
        plan: Plan,
        notice: Notice,
        n_layers: int,
    ) -> None:
        super().__init__(notice)
        self._directory, self._session = directory, session
        self._plan, self._n_layers = plan, n_layers
        self._saver = Saver(session)
        self._error: OSError | MpilayerError | None = None

    def due(self, epochs: int) -> bool:
        """Tell whether a layer with so many epochs since its last one saves now."""
        return self._saver.is_due(epochs)

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        """Write the checkpoint while training goes on; see ``finish``."""
        index = state.index
        path = self._directory.layer_file(index, snapshot.candidate)
        save = saving(path, state, snapshot, content="layer")

        def write() -> None:
            save()
            self._prune(index)

        self._saver.note(0)
        self._try(lambda: self._saver.start(write))

    def finish(self) -> None:
        """Wait until everything is written."""
        self._try(self._saver.finish)

    def insist(self) -> None:
        """Raise what has kept this rank from saving."""
        if self._error is not None:
            raise self._error

    def _try(self, work: Callable[[], None]) -> None:
        """Save, unless that has failed; then all ranks end where they can be resumed.

        Were it raised at once, each rank on a full disk would have its own message.
        """
        if self._error is not None:
            return
        try:
            work()
        except (OSError, MpilayerError) as error:
            self._error = error
            self.fail()

    def stopping(self, epoch_seconds: float) -> bool:
        """Tell whether any rank was asked to end."""
        if self._session.must_stop(epoch_seconds):
            self.fail()
        return super().stopping(epoch_seconds)

    def _prune(self, index: int) -> None:
        directory = self._directory
        saved = [directory.layer_candidates(i) for i in range(self._n_layers)]
        kept = worth_keeping(self._plan, saved)[index]
        for candidate in set(saved[index]) - kept:
            _tidy(directory.layer_file(index, candidate))


@dataclass(frozen=True)
class Cut:
    """Where a run goes on."""

    candidates: tuple[Candidate, ...]  # the checkpoint of each layer
    again: list[bool]  # whose last outputs go up once more
    remarks: list[str]  # what the user should know, such as damaged files

    @staticmethod
    def newest(directory: RunDirectory, plan: Plan, n_layers: int) -> "Cut":
        """Return the most advanced whole one; damaged files are passed over. Local."""
        saved = [directory.layer_candidates(i) for i in range(n_layers)]
        remarks = _unreadable(directory, saved)
        while True:
            candidates = newest_cut(plan, saved)
            for layer, candidate in enumerate(candidates):
                try:
                    if candidate != BEGINNING:
                        checkpoint.load(directory.layer_file(layer, candidate))
                except CheckpointError as error:
                    saved[layer].remove(candidate)
                    remarks.append(f"{error} Going on from an older one.")
                    break
            else:
                return Cut(candidates, outputs_again(plan, candidates), remarks)

    def make_so(self, directory: RunDirectory) -> None:
        """Remove what is newer: another course of events may follow. On one rank."""
        remove_unfinished(directory)
        for index, mine in enumerate(self.candidates):
            for other in directory.layer_candidates(index):
                if other > mine:
                    remove(directory.layer_file(index, other))
            if not mine.final:
                remove(directory.layer_checkpoint(index))


def find_cut(
    directory: RunDirectory, session: Session, plan: Plan, n_layers: int
) -> Cut:
    """Return where a run goes on, which is not at its end then. Collective."""
    comm = session.comm
    # It may be noted all the same, if what it has left was lost.
    comm.on_root(lambda: directory.set_complete("pretrain", False))
    cut = comm.on_root(lambda: Cut.newest(directory, plan, n_layers))
    for remark in cut.remarks:
        session.warn(remark)
    return cut


def restore_layers(
    directory: RunDirectory, states: Sequence[LayerState], cut: Cut, session: Session
) -> tuple[list[Snapshot], dict[int, list[EpochRecord]]]:
    """Put layers where the cut is; return snapshots and records of all. Collective."""
    comm = session.comm

    def snapshot(state: LayerState) -> Snapshot:
        candidate = cut.candidates[state.index]
        if candidate == BEGINNING:
            return Snapshot(candidate)
        file = directory.layer_file(state.index, candidate)
        arrays, numbers, _ = restore(file, state)
        return Snapshot.restore(candidate, arrays, numbers)

    mine = comm.everywhere(lambda: {s.index: snapshot(s) for s in states})
    comm.on_root(lambda: cut.make_so(directory))
    found = dict(ChainMap(*comm.allgather(mine)))
    at = ", ".join(str(candidate.epoch) for candidate in cut.candidates)
    session.say(f"going on after epochs {at} of layers 1 to {len(found)}")
    former = comm.on_root(lambda: _former_records(directory, cut))
    return [found[index] for index in sorted(found)], former


def _former_records(directory: RunDirectory, cut: Cut) -> dict[int, list[EpochRecord]]:
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


def lengthen(
    directory: RunDirectory,
    before: PretrainConfig,
    asked: PretrainConfig,
    old: Schedule,
    new: Schedule,
) -> None:
    """Let a run have more epochs: the weights will be those of such a run.

    ConfigError: a layer has used outputs that it would not have used then, or one that
    was the last and is not now. Local, on one rank.
    """
    plans = plan_of(before, old), plan_of(before, new)
    cut = Cut.newest(directory, plans[0], old.n_layers)
    for layer, candidate in enumerate(cut.candidates):
        used, then = (table.used[layer][: candidate.epoch] for table in (old, new))
        below = set(used) if layer else set[int]()
        if used != then or any(
            plans[0].streams(layer - 1, output) != plans[1].streams(layer - 1, output)
            for output in below
        ):
            key = "epochs" if before.epochs != asked.epochs else "extra_epochs"
            was, now = (",".join(map(str, getattr(c, key))) for c in (before, asked))
            raise ConfigError(
                f"a longer run must begin as this one did; {flag(key)} was {was}, is "
                f"{now}, and layer {layer + 1} would have been trained on other "
                "outputs. Leave it out, or begin another run."
            )
    # First: in a complete run, checkpoints that are not final would be removed.
    directory.set_complete("pretrain", False)
    for layer, candidate in enumerate(cut.candidates):
        if candidate.final and candidate.epoch < len(new.used[layer]):
            later = replace(candidate, final=False)
            directory.layer_file(layer, candidate).rename(
                directory.layer_file(layer, later)
            )
    directory.write_config({"pretrain": as_values(asked)})
    directory.write_table(new)


def remove_cuts(directory: RunDirectory, n_layers: int) -> None:
    """Remove the checkpoints on the way, once all layers are at their end. Local."""
    for index in range(n_layers):
        for candidate in directory.layer_candidates(index):
            if not candidate.final:
                _tidy(directory.layer_file(index, candidate))


def remove_unfinished(directory: RunDirectory) -> None:
    """Remove the files that killed launches were writing. Local, on one rank."""
    for folder in (directory.path, directory.checkpoints, directory.metrics):
        for path in folder.glob(".*.tmp"):
            _tidy(path)


def _tidy(path: Path) -> None:
    """Remove what is of no use any more, but does no harm either."""
    with files.optional(path, "it stays, and may be removed"):
        remove(path)


def remove_false_start(path: Path) -> None:
    """Remove what a launch has left that was killed before it said what it does.

    What is no such rest stays. Local, on one rank.
    """
    folders = [f for f in (path / "metrics", path / "checkpoints") if f.is_dir()]
    if any(any(folder.iterdir()) for folder in folders):
        return
    rest = [f for f in path.glob("*") if f not in folders and f.name != LOCK]
    if rest and len(folders) < 2:
        return  # both are made before any file is
    first = ("schedule.json", PREPARATION)
    if all(f.name in first or _UNFINISHED.fullmatch(f.name) for f in rest):
        for file in rest:
            file.unlink()
        for folder in folders:
            folder.rmdir()


def _unreadable(directory: RunDirectory, saved: list[list[Candidate]]) -> list[str]:
    """Return remarks on files of ended layers that do not even open."""
    paths = [directory.layer_checkpoint(index) for index in range(len(saved))]
    return [
        f"{path} must be a whole checkpoint; it cannot be read. Going on from an older "
        "one."
        for path, own in zip(paths, saved, strict=True)
        if path.exists() and not any(candidate.final for candidate in own)
    ]
