"""Checkpoints of the layers on their way, and the way back to them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from mpilayer import files
from mpilayer.errors import CheckpointError, MpilayerError
from mpilayer.parallel.notice import Notice
from mpilayer.runs.directory import LOCK, PREPARATION, RunDirectory, remove
from mpilayer.runs.model import saving
from mpilayer.runs.session import Session
from mpilayer.runs.writing import Writer
from mpilayer.store import checkpoint
from mpilayer.train.layer import LayerState
from mpilayer.train.pretrain import Keeper, Snapshot
from mpilayer.train.restart import (
    BEGINNING,
    Candidate,
    Rule,
    newest_cut,
    outputs_again,
    spares,
    worth_keeping,
)

_UNFINISHED = re.compile(r"\.(config\.toml|(preparation|schedule)\.json)\.\d+\.tmp")


class LayerKeeper(Keeper):
    """Saves the layers of a rank when it is due, and hears requests to end.

    A layer that others wait for shall not wait for a disk: files are written by a
    thread, from copies.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    session : Session
        Says when.
    rule : Rule
        Says which checkpoints go together.
    notice : Notice
        Tells all ranks that one was asked to end.
    n_layers : int
        Of the stack.
    """

    def __init__(
        self,
        directory: RunDirectory,
        session: Session,
        rule: Rule,
        notice: Notice,
        n_layers: int,
    ) -> None:
        super().__init__(notice)
        self._directory, self._session = directory, session
        self._rule, self._n_layers = rule, n_layers
        self._last = perf_counter()
        self._writer = Writer()
        self._error: OSError | MpilayerError | None = None

    def due(self, epochs: int) -> bool:
        """Tell whether a layer with so many epochs since its last one saves now."""
        return self._session.is_due(epochs, perf_counter() - self._last)

    def save(self, state: LayerState, snapshot: Snapshot) -> None:
        """Write the checkpoint while training goes on; see ``finish``."""
        index = state.settings.index
        path = self._directory.layer_file(index, snapshot.candidate)
        save = saving(path, state, snapshot, content="layer")
        self._last = perf_counter()
        self._try(lambda: self._writer.start(lambda: self._write(save, index)))

    def finish(self) -> None:
        """Wait until everything is written."""
        self._try(self._writer.finish)

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

    def _write(self, save: Callable[[], None], index: int) -> None:
        save()
        self._prune(index)

    def _prune(self, index: int) -> None:
        directory = self._directory
        saved = [directory.layer_candidates(i) for i in range(self._n_layers)]
        least = worth_keeping(self._rule, saved)[index]
        kept = spares(self._rule, saved)[index]
        for candidate in saved[index]:
            old = candidate.epoch < least and candidate not in kept
            if old and not candidate.final:
                _tidy(directory.layer_file(index, candidate))


@dataclass(frozen=True)
class Cut:
    """Where a run goes on.

    Attributes
    ----------
    candidates : tuple of Candidate
        The checkpoint of each layer.
    again : list of bool
        Layers whose last output goes up once more.
    remarks : list of str
        What the user should know, such as damaged files.
    """

    candidates: tuple[Candidate, ...]
    again: list[bool]
    remarks: list[str]

    @staticmethod
    def beginning(n_layers: int) -> "Cut":
        """Return the start of all layers."""
        return Cut((BEGINNING,) * n_layers, [False] * n_layers, [])

    @staticmethod
    def newest(directory: RunDirectory, rule: Rule, n_layers: int) -> "Cut":
        """Return the most advanced whole one; damaged files are passed over. Local."""
        saved = [directory.layer_candidates(i) for i in range(n_layers)]
        remarks = _unreadable(directory, saved)
        while True:
            candidates = newest_cut(rule, saved)
            fault = _damaged(directory, candidates)
            if fault is None:
                return Cut(candidates, outputs_again(rule, candidates), remarks)
            layer, remark = fault
            saved[layer].remove(candidates[layer])
            remarks.append(remark)

    def make_so(self, directory: RunDirectory) -> None:
        """Remove the checkpoints that are newer than the cut. Local, on one rank.

        What follows from here may be another course of events.
        """
        remove_unfinished(directory)
        for index, mine in enumerate(self.candidates):
            for other in directory.layer_candidates(index):
                if other > mine:
                    remove(directory.layer_file(index, other))
            if not mine.final:
                remove(directory.layer_checkpoint(index))


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

    Nothing was trained then; what is no such rest stays. Local, on one rank.
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


def _damaged(
    directory: RunDirectory, candidates: tuple[Candidate, ...]
) -> tuple[int, str] | None:
    """Return the first layer whose checkpoint is damaged, and what is wrong."""
    for layer, candidate in enumerate(candidates):
        if candidate != BEGINNING:
            try:
                checkpoint.load(directory.layer_file(layer, candidate))
            except CheckpointError as error:
                return layer, f"{error} Going on from an older one."
    return None


def _unreadable(directory: RunDirectory, saved: list[list[Candidate]]) -> list[str]:
    """Return remarks on files of ended layers that do not even open."""
    remarks = []
    for index, candidates in enumerate(saved):
        path = directory.layer_checkpoint(index)
        if path.exists() and not any(c.final for c in candidates):
            remarks.append(
                f"{path} must be a whole checkpoint; it cannot be read. Going on from "
                "an older one."
            )
    return remarks
