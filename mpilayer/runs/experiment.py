"""A whole experiment: data, training, evaluation, in one launch that can go on.

Its directory is described in :mod:`mpilayer.runs.plan`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mpilayer import files, interrupt
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, to_toml
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data
from mpilayer.errors import ConfigError, DataError, FileError
from mpilayer.interrupt import Interrupted
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.start import place
from mpilayer.runs.directory import RunDirectory, check_links, remove
from mpilayer.runs.drive import check_same, training_of
from mpilayer.runs.plan import (
    CONTENT,
    EVALUATION,
    FILE,
    FOLDER_OF,
    FOLDERS,
    TRAINING,
    Plan,
    is_experiment,
    read_plan,
    to_sections,
)
from mpilayer.runs.rows import (
    check_all_labels,
    check_minibatch,
    labelled_splits,
    like_of,
)
from mpilayer.runs.session import Session
from mpilayer.runs.sparse import sparse_facts
from mpilayer.runs.tasks import noted_threads
from mpilayer.runs.use import evaluate
from mpilayer.train.layer import check_layer, layer_shapes

NAME = "experiment"
"""What ``complete`` says when all steps have come to their end."""

Shown = Callable[[str, Path, dict[str, Any]], object]
"""Shows what a step has reached: its mark, its run directory, its summary."""

Report = Callable[[Plan], tuple[bool, str]]
"""Writes the report; returns whether it did, and a line that says where it is."""

_WAY_ON = "the same command and --resume auto"


@dataclass(frozen=True)
class Experiment:
    """An experiment on the ranks of a session.

    ``shown`` and ``report`` are called on rank 0. ``threads`` are BLAS threads of each
    rank; 0: as each step began, or its usual ones.
    """

    plan: Plan
    session: Session
    shown: Shown
    report: Report
    threads: int = 0

    @property
    def directory(self) -> RunDirectory:
        """Where it notes which steps are complete."""
        return RunDirectory(self.plan.path)

    def carry_out(self, replace_run: bool = False) -> None:
        """Carry out all steps that are not complete. Collective.

        With ``replace_run`` a former experiment gives way.

        Raises
        ------
        MpilayerError, Interrupted
            On every rank; the latter after saving.
        """
        plan, session, comm = self.plan, self.session, self.session.comm
        comm.on_root(lambda: _open(plan, session.safety.resume, replace_run))
        with session.listening():
            for number, step in enumerate(plan.steps, 1):
                if any(comm.allgather(session.must_stop(0.0))):
                    raise _interrupted(step)
                session.say(f"step {number} of {len(plan.steps)}: {step}")
                try:
                    complete = self._do(step)
                except Interrupted:
                    raise _interrupted(step) from None
                except FileError as error:
                    error.go_on = _WAY_ON
                    raise
                comm.on_root(partial(self.directory.set_complete, step, complete))
        comm.on_root(lambda: _write(plan))
        comm.on_root(lambda: self.directory.set_complete(NAME))

    def _do(self, step: str) -> bool:
        """Do one step if it is not complete; return whether it is now. Collective."""
        plan, session, comm = self.plan, self.session, self.session.comm
        if step == "data":
            comm.on_root(lambda: _make_data(plan, session.say))
            comm.on_root(lambda: _check_with_data(plan))
        elif step in TRAINING:
            self._train(step)
        elif comm.on_root(lambda: self.directory.is_complete(step)):
            session.say(f"{step} is complete; there is nothing to do")
        elif step == "evaluate":
            results = self._evaluate()
            text = json.dumps(results, indent=2, allow_nan=False) + "\n"
            comm.on_root(lambda: files.write(plan.path / EVALUATION, text))
            if comm.rank == 0:
                self.shown(step, plan.path, results)
        else:
            written, line = comm.on_root(lambda: self.report(plan))
            session.say(line)
            return written
        return True

    def _train(self, step: str) -> None:
        """Train to the end, from where the step was, with its own threads."""
        plan, comm = self.plan, self.session.comm
        mark, run = plan.mark(step), plan.folder(step)
        kind, noted = training_of(mark), comm.on_root(lambda: noted_threads(run, mark))
        session = replace(
            self.session,
            safety=replace(self.session.safety, resume=True),
            placement=place(comm, self.threads or noted or kind.threads),
        )
        training = kind(run, session, plan.training[step], plan.data_path)

        def before() -> dict[str, Any]:
            return training.found() if training.directory.is_complete(mark) else {}

        former = comm.on_root(before)
        result = training.drive()
        if result != former:
            for later in ("evaluate", "report"):
                comm.on_root(partial(self.directory.set_complete, later, False))
        if comm.rank == 0:
            self.shown(mark, run, result)

    def _evaluate(self) -> dict[str, Any]:
        """Return the errors of all models by their folders."""
        plan = self.plan
        runs: list[str] = []
        for folder in dict.fromkeys(FOLDER_OF.get(s, s) for s in plan.training):
            both = ("compare/average", "compare/exact")
            runs += both if folder == "compare" else (folder,)
        results = {}
        for name in runs:
            path = plan.path / name
            task = plan.task if name == FOLDER_OF["finetune"] else None
            if path.is_dir():
                split = self.session.comm.on_root(partial(_split, plan, task))
                results[name] = evaluate(
                    path, split, self.session, plan.data_path, task
                )
        return results


def _open(plan: Plan, resume: bool, replace_run: bool) -> None:
    """Make the directory, or look whether it can go on; on rank 0."""
    path = plan.path
    _check_source(plan)
    check_links(path, FOLDERS)
    if is_experiment(path) and resume:
        _check_data(plan)
        RunDirectory(path).set_complete(NAME, False)
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        _check_replaceable(plan, replace_run)
        for name in (*CONTENT, plan.report.file):
            remove(path / name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write(plan)
    except OSError as error:
        raise ConfigError(
            f"{path} must be a folder that can be written; {error.strerror}. Choose "
            "another --run."
        ) from error


def _check_replaceable(plan: Plan, replace_run: bool) -> None:
    path = plan.path
    if not is_experiment(path):
        raise ConfigError(
            f"--run must name a new folder or an experiment; {path} holds other files. "
            "Choose another name."
        )
    others = sorted({p.name for p in path.iterdir()} - CONTENT)
    others = [name for name in others if name != plan.report.file]
    if replace_run and others:
        raise ConfigError(
            f"--replace removes an experiment and nothing else; {path} holds other "
            f"files ({', '.join(others[:3])}). Move them, or choose another --run."
        )
    if not replace_run:
        raise ConfigError(
            f"--run must name a new folder; {path} holds an experiment already. Go on "
            "with --resume auto, begin anew with --replace, or choose another name."
        )


def _check_data(plan: Plan) -> None:
    """Check that an experiment that goes on wants the data that it has made."""
    before = read_plan(plan.path / FILE).data
    if before.source and plan.data.source and plan.data_path.exists():
        check_same(before, plan.data, ("path",))


def _write(plan: Plan) -> None:
    files.write(plan.path / FILE, to_toml(to_sections(plan)))


def _check_source(plan: Plan) -> None:
    """Check that there is a data set, or something to make it from."""
    path, source = plan.data_path, plan.data.source
    if path.is_file() or (source and Path(source).exists()):
        return
    if source:
        raise DataError(
            f"the source of the data set must be there; there is no {source}. Give "
            "--set data.source=FILE."
        )
    raise DataError(
        f"the data set must be there, or [data] must say its source; {path} is not "
        "a file. Give --set data.path=DATA.h5."
    )


def _make_data(plan: Plan, say: Callable[[str], None]) -> None:
    path = plan.data_path
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"making {path} from {plan.data.source}")
    make_data(plan.data, path, like_of(plan.data.like))


def _check_with_data(plan: Plan) -> None:
    """Check the settings of all steps against the data, before the first one."""
    with Dataset.open(plan.data_path) as dataset:
        n_train, n_visible = dataset.n_samples("train"), dataset.n_visible
        if plan.task and plan.task != "autoencode":
            check_all_labels(dataset, plan.task)
    for step in plan.steps:
        config = plan.training.get(step)
        if isinstance(config, SparseConfig):
            sparse_facts(plan.data_path, config)
        elif isinstance(config, PretrainConfig):
            for shape in layer_shapes(config, n_visible):
                check_layer(config, shape)
        elif isinstance(config, FinetuneConfig) and config.task == "autoencode":
            check_loss(config.loss, plan.training["pretrain"].visible)
        if isinstance(config, PretrainConfig | FinetuneConfig):
            check_minibatch(config.minibatch, n_train, step)


def _split(plan: Plan, task: str | None) -> str:
    """Return the split to evaluate on, for a predictor one that has labels."""
    with Dataset.open(plan.data_path) as dataset:
        predicts = task not in (None, "autoencode")
        known = labelled_splits(dataset) if predicts else dataset.splits
    return plan.experiment.split if plan.experiment.split in known else "train"


def _interrupted(step: str) -> Interrupted:
    reason = interrupt.requested() or "the time limit"
    return Interrupted(
        f"saved and stopped in step {step} because of {reason}; go on with {_WAY_ON}"
    )
