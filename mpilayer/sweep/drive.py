"""A sweep carried out: its runs one after the other, or several at once.

::

    experiment.toml          the settings and [sweep]; serves as EXPERIMENT.toml
    data.h5                  the data set that all runs share, if it was made here
    CASE/seed-3/             an experiment; log.txt has its lines
    CASE/seed-3/diverged.txt why its training could not go on, if it could not
    sweep.json, sweep.csv    the table; report.html  the page
    complete                 "sweep", or the parts of a job array, at their end
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np

from mpilayer import files
from mpilayer.config import SWEEP, read_experiment
from mpilayer.errors import ConfigError, MpilayerError, TrainingError
from mpilayer.interrupt import Interrupted
from mpilayer.parallel.comm import wait_until
from mpilayer.parallel.notice import Notice
from mpilayer.parallel.start import place
from mpilayer.runs.directory import EXPERIMENT, RunDirectory, check_links, remove
from mpilayer.runs.experiment import (
    CONTENT,
    Experiment,
    Plan,
    check_source,
    write_first,
)
from mpilayer.runs.session import RunLock, Say, Session, at_work
from mpilayer.sweep.plan import Member, SweepPlan, check_goes_on, read_sweep
from mpilayer.sweep.table import DIVERGED, errors_of, in_words, is_over
from mpilayer.words import count, few

LOG = "log.txt"
_OWN = frozenset({EXPERIMENT, "complete", "report.html", "sweep.json", "sweep.csv"})
_TURNS = ".turns"
_PAUSE = 0.2
_WAY_ON = "the same command and --resume auto"


@dataclass(frozen=True)
class _Turn(Session):
    """The session of a group of ranks; all groups end when one was asked to."""

    notice: Notice | None = None

    def must_stop(self, unit_seconds: float) -> bool:
        """Tell whether any rank of any group was asked to end. Local."""
        mine = super().must_stop(unit_seconds)
        if mine and self.notice is not None:
            self.notice.raise_it()
        return mine or (self.notice is not None and self.notice.is_raised())


@dataclass(frozen=True)
class Sweep:
    """A sweep on the ranks of a session, of which ``at_once`` groups train.

    ``say`` tells a line from any rank; ``part``, such as (2, 10), is which of how many
    parts this launch carries out, counted from 0. ``report`` writes that of an
    experiment, if its file asks for one.
    """

    plan: SweepPlan
    session: Session
    say: Say
    report: Callable[[Plan], tuple[bool, str]]
    at_once: int = 1
    part: tuple[int, int] = (0, 1)

    def carry_out(self, replace_run: bool = False) -> None:
        """Carry out all runs that are not complete. Collective.

        A run that diverges says so in its folder, and the others go on. An error, or
        ``Interrupted`` after saving, is raised on every rank.
        """
        size = self.session.comm.size
        if not 0 < self.at_once <= size or size % self.at_once:
            raise ConfigError(
                f"--at-once must be a part of the ranks, {size}, so that each run has "
                f"as many; got {self.at_once}. Give a divisor, or start other ranks."
            ).of_all_ranks()
        launch = RunLock(self._turns_taken)
        try:
            self._carry_out(launch, replace_run)
        finally:
            launch.release(True)
        self.session.comm.on_root(self._close)

    def _carry_out(self, launch: RunLock, replace_run: bool) -> None:
        session, world = self.session, self.session.comm
        with session.listening():
            own = self._turn()
            world.on_root(lambda: self._open(own, launch, replace_run))
            session.warn(session.placement.crowded)
            if self.at_once > 1:
                own = replace(own, notice=Notice(world))
            stopped, failure = False, None
            try:
                for number, member in self._turns(own):
                    self._run(number, member, own)
            except Interrupted:
                stopped = True
            except MpilayerError as error:
                failure = error
            self._await_others(own, stopped or failure is not None)
            stopped = any(world.allgather(stopped))
            world.everywhere(partial(_raise, failure))
            if stopped:
                raise session.interrupted(_WAY_ON)

    def _turn(self) -> _Turn:
        """Return the session of this rank's group. Collective."""
        session, group = self.session, self.session.comm
        placement = session.placement
        if self.at_once > 1:
            group = group.split(group.rank * self.at_once // group.size, group.rank)
            own = place(group, placement.threads)
            placement = replace(own, crowded=placement.crowded or own.crowded)
        safety = replace(session.safety, resume=True)
        changed = {"comm": group, "placement": placement, "safety": safety}
        return _Turn(**{**vars(session), **changed})

    @property
    def members(self) -> Sequence[Member]:
        """The runs of this part."""
        (number, parts), n = self.part, len(self.plan.members)
        return self.plan.members[number * n // parts : (number + 1) * n // parts]

    # --- on rank 0, at first and at last

    def _open(self, session: Session, launch: RunLock, replace_run: bool) -> None:
        """Make the directory, or look whether it can go on; make the data.

        The lock is kept: each part has one launch at a time.
        """
        path = self.plan.path
        for plan in {m.plan.data_path: m.plan for m in self.members}.values():
            check_source(plan)
        check_links(path)
        self._look(replace_run)  # in another folder there is nothing to wait for
        with self._locked():
            before = self._look(replace_run)
            if before is not None and self.session.safety.resume:
                check_goes_on(before, self.plan)
            launch.insist()
            if before is not None and replace_run:
                self._check_idle()
                _remove(before)
            write_first(path, self.plan.write)
            self._begin(session)

    def _look(self, replace_run: bool) -> SweepPlan | None:
        """Return the sweep that is there, if any; an error if it is in the way."""
        path = self.plan.path
        if not path.exists():
            return None
        before = read_before(path)
        found = "" if path.is_dir() else "is a file"
        if before is None and path.is_dir():
            others = [p for p in path.iterdir() if not p.name.startswith(".")]
            found = "holds other files" if others else ""
        if found:
            raise ConfigError(
                f"--run must name a new folder or a sweep; {path} {found}. Choose "
                "another name."
            )
        if before is not None and not (self.session.safety.resume or replace_run):
            raise ConfigError(
                f"--run must name a new folder; {path} holds a sweep already. Go on "
                "with --resume auto, begin anew with --replace, or choose another name."
            )
        return before

    def _check_idle(self) -> None:
        """Check that no other part is at work in what --replace removes."""
        for turns in self.plan.path.glob(f"{_TURNS}-*"):
            if turns != self._turns_taken and at_work(turns):
                raise ConfigError(
                    "--replace needs a sweep in which nobody is at work; a launch of "
                    f"another part is, in {turns}. Wait until it has ended, or end it."
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others out: tasks of a job array may begin at once."""
        lock = RunLock(self.plan.path)
        if not lock.take():
            self.say(f"waiting for another launch in {self.plan.path} to begin")
            while not lock.take():
                sleep(_PAUSE)
        try:
            yield
        finally:
            lock.release(True)

    def _begin(self, session: Session) -> None:
        """Make the data, and check all settings against them."""
        said = replace(session, say=self.say)
        for member in self.members:
            self._experiment(member, said).prepare()
        for taken in self._turns_taken.glob("[0-9]*"):
            taken.unlink()
        left = [member for member in self.members if not is_over(member.plan)]
        over = len(self.members) - len(left)
        ranks = count(session.comm.size, "rank")
        words = f"a sweep of {count(len(self.members), 'run')} in {self.plan.path}"
        words += f", {self.at_once} at once" if self.at_once > 1 else ""
        self.say(f"{words}, {ranks} each; {over} over already; their lines: {LOG}")

    def _close(self) -> None:
        """Note that all is done."""
        remove(self._turns_taken)
        number, parts = self.part
        mark = SWEEP if parts == 1 else f"part-{number}/{parts}"
        with self._locked():
            RunDirectory(self.plan.path).set_complete(mark)

    # --- on the ranks of a group

    @property
    def _turns_taken(self) -> Path:
        """Where each run that has begun in this launch leaves a file."""
        return self.plan.path / f"{_TURNS}-{self.part[0]}"

    def _turns(self, session: _Turn) -> Iterator[tuple[int, Member]]:
        """Yield the runs that this group is to do, each when its turn comes."""
        comm = session.comm
        for number, member in enumerate(self.members, 1):
            if comm.on_root(partial(self._is_free, number, member)):
                if any(comm.allgather(session.must_stop(0.0))):
                    raise Interrupted
                yield number, member

    def _is_free(self, number: int, member: Member) -> bool:
        """Take a run that is not over, if no other group has."""
        if is_over(member.plan):
            return False
        try:
            (self._turns_taken / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _run(self, number: int, member: Member, session: Session) -> None:
        """Carry out a run, and say what it has come to. Collective on the group."""
        began, comm, plan = monotonic(), session.comm, member.plan
        comm.on_root(lambda: plan.path.mkdir(parents=True, exist_ok=True))
        say = partial(_write_line, plan.path / LOG) if comm.rank == 0 else session.say
        told = ""
        try:
            self._experiment(member, replace(session, say=say)).carry_out()
        except TrainingError as error:
            told = str(error)
            comm.on_root(lambda: files.write(plan.path / DIVERGED, f"{told}\n"))
        if comm.rank == 0:
            words = "diverged" if told else in_words(errors_of(member.plan))
            place_ = f"[{number}/{len(self.members)}]"
            seconds = monotonic() - began
            self.say(f"{place_} {member.name}: {words} ({seconds:.0f} s)")
            if told:
                say(told)

    def _experiment(self, member: Member, session: Session) -> Experiment:
        # It shows no tables: the sweep has one of its own.
        return Experiment(member.plan, session, lambda *_: None, self.report)

    def _await_others(self, session: _Turn, stop: bool) -> None:
        """Wait until all groups are through, and pass on requests to end."""
        if session.notice is None:
            return
        if stop:
            session.notice.raise_it()
        through = self.session.comm.start_sum(np.zeros(1))

        def all_are_through() -> bool:
            session.must_stop(0.0)  # who is asked to end meanwhile tells the others
            return through.test()

        wait_until(all_are_through)
        session.notice.close()


def read_before(path: Path) -> SweepPlan | None:
    """Return the sweep whose directory it is, None if it is none's. Local."""
    file = path / EXPERIMENT
    if not (file.is_file() and SWEEP in read_experiment(file)):
        return None
    found = read_sweep(file, run=path, many=True)
    return found if isinstance(found, SweepPlan) else None


def _remove(before: SweepPlan) -> None:
    """Remove all of a former sweep; ConfigError if there is anything else."""
    path, plans = before.path, [member.plan for member in before.members]
    made = {
        p.data_path.name for p in plans if p.data.source and p.data_path.parent == path
    }
    known = {path: {*_OWN, *made}}
    for plan in plans:
        known[plan.path] = {*CONTENT, LOG, DIVERGED, plan.report.file}
        for folder in plan.path.relative_to(path).parents:
            inner = plan.path.relative_to(path / folder).parts[0]
            known.setdefault(path / folder, set()).add(inner)
    others = [
        str(found.relative_to(path))
        for folder, names in known.items()
        for found in (folder.iterdir() if folder.is_dir() else ())
        if found.name not in names and not found.name.startswith(".")
    ]
    if others:
        raise ConfigError(
            f"--replace removes a sweep and nothing else; {path} holds other files "
            f"({few(others, 3)}). Move them, or choose another --run."
        )
    # Its settings last: who is killed leaves a sweep that can be replaced.
    for name in sorted(known[path], key=EXPERIMENT.__eq__):
        remove(path / name)


def _write_line(file: Path, text: str) -> None:
    with files.optional(file, "its lines are lost"), file.open("a", -1, "utf-8") as log:
        log.write(f"{text}\n")


def _raise(error: MpilayerError | None) -> None:
    if error is not None:
        raise error
