"""A whole experiment: its file, its steps in one launch that can go on.

::

    experiment.toml          the effective settings; serves as EXPERIMENT.toml
    data.h5                  the data set, if it was made here
    deep/                    the run of pretrain and finetune
    sparse/, compare/        the runs of these steps
    evaluate.json            errors of all models, with the PCA errors beside them
    complete                 the steps that have come to their end, one a line
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.config import (
    STEPS,
    DataConfig,
    ExperimentConfig,
    FinetuneConfig,
    PretrainConfig,
    ReportConfig,
    SparseConfig,
    as_values,
    read_experiment,
    to_toml,
)
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data, patch_range
from mpilayer.errors import ConfigError, DataError, FileError
from mpilayer.interrupt import Interrupted
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.start import place
from mpilayer.runs import rows
from mpilayer.runs.directory import EXPERIMENT, RunDirectory, check_links, remove
from mpilayer.runs.drive import check_same, training_of
from mpilayer.runs.session import Session
from mpilayer.runs.sparse import sparse_facts
from mpilayer.runs.tasks import TASKS, noted_threads
from mpilayer.runs.use import evaluate
from mpilayer.train.layer import check_layer, layer_shapes

FOLDERS = {
    "pretrain": "deep",
    "finetune": "deep",
    "sparse": "sparse",
    "compare": "compare",
}
"""Where the run of a step that trains is."""

EVALUATION = "evaluate.json"
CONTENT = frozenset({EXPERIMENT, "data.h5", *FOLDERS.values(), EVALUATION, "complete"})
"""All that an experiment leaves, but for its report."""

NAME = "experiment"
"""What ``complete`` says when all steps have come to their end."""

_WAY_ON = "the same command and --resume auto"


@dataclass(frozen=True)
class Plan:
    """What an experiment does: its sections, and its steps in their order."""

    experiment: ExperimentConfig
    data: DataConfig
    report: ReportConfig
    training: Mapping[str, Any]
    steps: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The directory of all results."""
        return Path(self.experiment.run)

    @property
    def data_path(self) -> Path:
        """The data set."""
        return Path(self.data.path or self.path / "data.h5")

    @property
    def task(self) -> str | None:
        """The task of fine-tuning, if there is such a step."""
        config = self.training.get("finetune")
        return config.task if isinstance(config, FinetuneConfig) else None

    def mark(self, step: str) -> str:
        """Return what a training step's run calls it."""
        return TASKS[self.task].name if step == "finetune" and self.task else step

    def folder(self, step: str) -> Path:
        """Return the run directory of a training step."""
        return self.path / FOLDERS[step]


def is_experiment(path: Path) -> bool:
    """Tell whether a directory is that of an experiment. Local."""
    return (path / EXPERIMENT).is_file()


def read_plan(file: Path, changes: Iterable[str] = (), run: Path | None = None) -> Plan:
    """Read and check an experiment's TOML file.

    ``changes``, each ``section.key=value``, and ``run``, the directory of all results,
    come before what the file says. A ``ConfigError`` names a wrong section, key, type
    or range, or steps that do not go together.
    """
    configs, sections = read_experiment(file, changes)
    training = {name: configs[name] for name in FOLDERS if name in sections}
    first: ExperimentConfig = configs["experiment"]
    name = first.name or file.stem
    path = str(run) if run else first.run or str(Path("runs") / name)
    chosen = {"data", *first.steps}
    if first.steps == ("auto",):
        chosen = {"data", "evaluate", "report", *sections}
    plan = Plan(
        replace(first, name=name, run=path),
        configs["data"],
        configs["report"],
        training,
        tuple(step for step in STEPS if step in chosen),
    )
    _check(plan, file)
    return plan


def to_sections(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the effective settings by section."""
    own: dict[str, Any] = {"experiment": plan.experiment, "data": plan.data}
    own |= {"report": plan.report, **plan.training}
    return {name: as_values(config) for name, config in own.items()}


def _check(plan: Plan, file: Path) -> None:
    """Check what concerns several sections."""
    steps, asked = plan.steps, plan.experiment.steps
    trains = [step for step in steps if step in FOLDERS]
    lacking = next((step for step in trains if step not in plan.training), "")
    report = Path(plan.report.file)
    is_new = report.name == plan.report.file and report.name not in CONTENT
    for holds, words in (
        (
            trains,
            f" must train something; it has none of the sections {', '.join(FOLDERS)}. "
            "See 'mpilayer config experiment'.",
        ),
        (
            "auto" not in asked or len(asked) == 1,
            f": steps must be auto alone, or steps; got {', '.join(asked)}. Leave auto "
            "out.",
        ),
        (
            not lacking,
            f": step {lacking} needs the section [{lacking}]; there is none. Add it; "
            "it may be empty.",
        ),
        (
            "finetune" not in trains or "pretrain" in trains,
            f": step finetune needs pretrain before it; found {', '.join(trains)}. Add "
            "the section [pretrain].",
        ),
        (
            plan.data.path or plan.data.source,
            ": [data] must say path, source or both; it says neither. Add it, or give "
            "--set data.path=DATA.h5.",
        ),
        (
            is_new and report.suffix.lower() in files.PAGES,
            ": [report] file must be a new name beside the results that ends in "
            f"{' or '.join(files.PAGES)}; got {plan.report.file!r}. Give for example "
            "file = 'report.html'.",
        ),
    ):
        if not holds:
            raise ConfigError(f"{file}{words}")
    patch_range(plan.data.range)


# --- its steps

Shown = Callable[[str, Path, dict[str, Any]], object]
"""Shows what a step has reached: its mark, its run directory, its summary."""

Report = Callable[[Plan], tuple[bool, str]]
"""Writes the report; returns whether it did, and a line that says where it is."""


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

        With ``replace_run`` a former experiment gives way. An error, or ``Interrupted``
        after saving, is raised on every rank.
        """
        plan, session, comm = self.plan, self.session, self.session.comm
        comm.on_root(lambda: _open(plan, session.safety.resume, replace_run))
        with session.listening():
            for number, step in enumerate(plan.steps, 1):
                if any(comm.allgather(session.must_stop(0.0))):
                    raise session.interrupted(_WAY_ON, f" in step {step}")
                session.say(f"step {number} of {len(plan.steps)}: {step}")
                try:
                    complete = self._do(step)
                except Interrupted:
                    raise session.interrupted(_WAY_ON, f" in step {step}") from None
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
        elif step in FOLDERS:
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
            complete, line = comm.on_root(lambda: self.report(plan))
            session.say(line)
            return complete
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
        done = comm.on_root(lambda: training.directory.is_complete(mark))
        former = comm.on_root(training.found) if done else {}
        result = training.drive()
        if result != former:
            for later in ("evaluate", "report"):
                comm.on_root(partial(self.directory.set_complete, later, False))
        if comm.rank == 0:
            self.shown(mark, run, result)

    def _evaluate(self) -> dict[str, Any]:
        """Return the errors of all models by their folders."""
        plan, session = self.plan, self.session
        runs: list[str] = []
        for folder in dict.fromkeys(FOLDERS[step] for step in plan.training):
            both = ("compare/average", "compare/exact")
            runs += both if folder == "compare" else (folder,)
        results = {}
        for name in runs:
            path = plan.path / name
            task = plan.task if name == FOLDERS["finetune"] else None
            if path.is_dir():
                split = session.comm.on_root(partial(_split, plan, task))
                results[name] = evaluate(path, split, session, plan.data_path, task)
        return results


def _open(plan: Plan, resume: bool, replace_run: bool) -> None:
    """Make the directory, or look whether it can go on; on rank 0."""
    path = plan.path
    _check_source(plan)
    check_links(path, FOLDERS.values())
    if is_experiment(path) and resume:
        before = read_plan(path / EXPERIMENT).data
        if before.source and plan.data.source and plan.data_path.exists():
            check_same(before, plan.data, ("path",))
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
    others = sorted({p.name for p in path.iterdir()} - CONTENT - {plan.report.file})
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


def _write(plan: Plan) -> None:
    files.write(plan.path / EXPERIMENT, to_toml(to_sections(plan)))


def _check_source(plan: Plan) -> None:
    """Check that there is a data set, or something to make it from."""
    path, source = plan.data_path, plan.data.source
    if path.is_file() or (source and Path(source).exists()):
        return
    words = (
        f"the data set must be there, or [data] must say its source; {path} is not a "
        "file. Give --set data.path=DATA.h5."
    )
    if source:
        words = (
            f"the source of the data set must be there; there is no {source}. Give "
            "--set data.source=FILE."
        )
    raise DataError(words)


def _make_data(plan: Plan, say: Callable[[str], None]) -> None:
    path = plan.data_path
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"making {path} from {plan.data.source}")
    make_data(plan.data, path, rows.like_of(plan.data.like))


def _check_with_data(plan: Plan) -> None:
    """Check the settings of all steps against the data, before the first one."""
    with Dataset.open(plan.data_path) as dataset:
        n_train, n_visible = dataset.n_samples("train"), dataset.n_visible
        if plan.task and plan.task != "autoencode":
            rows.check_all_labels(dataset, plan.task)
    for step in plan.steps:
        config = plan.training.get(step)
        if isinstance(config, SparseConfig):
            averages = step == "compare" or config.kl == "average"
            sparse_facts(plan.data_path, config, averages)
        elif isinstance(config, PretrainConfig):
            for index, shape in enumerate(layer_shapes(config, n_visible)):
                check_layer(config, shape, index)
        elif isinstance(config, FinetuneConfig) and config.task == "autoencode":
            check_loss(config.loss, plan.training["pretrain"].visible)
        if isinstance(config, PretrainConfig | FinetuneConfig):
            rows.check_minibatch(config.minibatch, n_train, step)


def _split(plan: Plan, task: str | None) -> str:
    """Return the split to evaluate on, for a predictor one that has labels."""
    with Dataset.open(plan.data_path) as dataset:
        predicts = task not in (None, "autoencode")
        known = rows.labelled_splits(dataset) if predicts else dataset.splits
    return plan.experiment.split if plan.experiment.split in known else "train"
