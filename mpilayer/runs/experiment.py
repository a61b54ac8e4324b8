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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.config import (
    STEPS,
    SWEEP,
    DataConfig,
    ExperimentConfig,
    FinetuneConfig,
    PretrainConfig,
    ReportConfig,
    SparseConfig,
    as_values,
    read_experiment,
    settings_of_all,
    to_toml,
)
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data, patch_range
from mpilayer.errors import ConfigError, DataError, FileError
from mpilayer.interrupt import Interrupted
from mpilayer.numerics.losses import check_loss
from mpilayer.runs import rows
from mpilayer.runs.directory import EXPERIMENT, RunDirectory, check_links, remove
from mpilayer.runs.drive import check_same, training_of
from mpilayer.runs.evaluate import evaluate
from mpilayer.runs.session import Session, at_work
from mpilayer.runs.tasks import TASKS
from mpilayer.train.groups import check_ranks, resolved
from mpilayer.train.layer import check_layer, layer_shapes
from mpilayer.train.teams import places_for

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

    def write(self) -> None:
        """Write the effective settings, a file that ``plan_of`` understands."""
        own: dict[str, Any] = {"experiment": self.experiment, "data": self.data}
        own |= {"report": self.report, **self.training}
        text = to_toml({name: as_values(config) for name, config in own.items()})
        files.write(self.path / EXPERIMENT, text)


def is_experiment(path: Path) -> bool:
    """Tell whether a directory is that of an experiment. Local."""
    return (path / EXPERIMENT).is_file()


def plan_of(
    file: Path, sections: Mapping[str, Mapping[str, Any]], run: Path | None = None
) -> Plan:
    """Return what the sections of a ``file`` make, checked.

    ``run``, the directory of all results, comes before what they say.
    """
    configs = settings_of_all(file, sections)
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


def _check(plan: Plan, file: Path) -> None:
    """Check what concerns several sections."""
    asked, report = plan.experiment.steps, plan.report.file
    trains = [step for step in plan.steps if step in FOLDERS]
    lacking = [step for step in trains if step not in plan.training]
    is_new = Path(report).name == report and report not in CONTENT
    fault = ""
    if not trains:
        fault = (
            f" must train something; it has none of the sections {', '.join(FOLDERS)}. "
            "See 'mpilayer config experiment'."
        )
    elif "auto" in asked and len(asked) > 1:
        found = ", ".join(asked)
        fault = f": steps must be auto alone, or steps; got {found}. Leave auto out."
    elif lacking:
        fault = (
            f": step {lacking[0]} needs the section [{lacking[0]}]; there is none. Add "
            "it; it may be empty."
        )
    elif "finetune" in trains and "pretrain" not in trains:
        fault = (
            f": step finetune needs pretrain before it; found {', '.join(trains)}. Add "
            "the section [pretrain]."
        )
    elif not (plan.data.path or plan.data.source):
        fault = (
            ": [data] must say path, source or both; it says neither. Add it, or give "
            "--set data.path=DATA.h5."
        )
    elif not is_new or Path(report).suffix.lower() not in files.PAGES:
        fault = (
            ": [report] file must be a new name beside the results that ends in "
            f"{' or '.join(files.PAGES)}; got {report!r}. Give for example file = "
            "'report.html'."
        )
    if fault:
        raise ConfigError(f"{file}{fault}")
    patch_range(plan.data.range)


# --- its steps


@dataclass(frozen=True)
class Experiment:
    """An experiment on the ranks of a session.

    On rank 0 ``shown`` is called with each step's mark, run directory and summary;
    ``report`` writes the report, and returns whether it did and a line on where.
    """

    plan: Plan
    session: Session
    shown: Callable[[str, Path, dict[str, Any]], object]
    report: Callable[[Plan], tuple[bool, str]]

    @property
    def directory(self) -> RunDirectory:
        """Where it notes which steps are complete."""
        return RunDirectory(self.plan.path)

    def carry_out(self, replace_run: bool = False) -> None:
        """Carry out all steps that are not complete. Collective.

        With ``replace_run`` a former experiment gives way. Errors, and ``Interrupted``
        after saving, are raised on every rank.
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
        comm.on_root(plan.write)
        comm.on_root(lambda: self.directory.set_complete(NAME))

    def _do(self, step: str) -> bool:
        """Do one step if it is not complete; return whether it is now. Collective."""
        plan, session, comm = self.plan, self.session, self.session.comm
        if step == "data":
            comm.on_root(self.prepare)
        elif step in FOLDERS:
            self._train(step)
        elif comm.on_root(lambda: self.directory.is_complete(step)):
            session.say(f"{step} is complete; there is nothing to do")
        elif step == "evaluate":
            self._evaluate()
        else:
            complete, line = comm.on_root(lambda: self.report(plan))
            session.say(line)
            return complete
        return True

    def prepare(self) -> None:
        """Make the data set if there is none; check all settings. On rank 0."""
        config, path = self.plan.data, self.plan.data_path
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.session.say(f"making {path} from {config.source}")
            make_data(config, path, rows.like_of(config.like))
        _check_with_data(self.plan, self.session.placement.hosts)

    def _train(self, step: str) -> None:
        """Train to the end, from where the step was."""
        plan, comm = self.plan, self.session.comm
        mark, run = plan.mark(step), plan.folder(step)
        safety = replace(self.session.safety, resume=True)
        session = replace(self.session, safety=safety)
        kind, config = training_of(mark), plan.training[step]
        training = kind(run, session, config, plan.data_path)
        done = comm.on_root(lambda: training.directory.is_complete(mark))
        former = comm.on_root(training.found) if done else {}
        result = training.drive()
        if result != former:
            for later in ("evaluate", "report"):
                comm.on_root(partial(self.directory.set_complete, later, False))
        if comm.rank == 0:
            self.shown(mark, run, result)

    def _evaluate(self) -> None:
        """Write, and show, the errors of all models by their folders."""
        plan, session, comm = self.plan, self.session, self.session.comm
        results = {}
        for folder in dict.fromkeys(FOLDERS[step] for step in plan.training):
            task = plan.task if folder == FOLDERS["finetune"] else None
            both = ("compare/average", "compare/exact")
            for name in both if folder == "compare" else (folder,):
                if (plan.path / name).is_dir():
                    split = comm.on_root(partial(_split, plan, task))
                    where = plan.path / name, split, session, plan.data_path, task
                    results[name] = evaluate(*where)
        text = json.dumps(results, indent=2, allow_nan=False) + "\n"
        comm.on_root(lambda: files.write(plan.path / EVALUATION, text))
        if comm.rank == 0:
            self.shown("evaluate", plan.path, results)


def _open(plan: Plan, resume: bool, replace_run: bool) -> None:
    """Make the directory, or look whether it can go on; on rank 0."""
    path, report = plan.path, plan.report.file
    check_source(plan)
    check_links(path, FOLDERS.values())
    file = path / EXPERIMENT
    before = read_experiment(file) if is_experiment(path) else {}
    if SWEEP in before:
        raise ConfigError(
            f"--run must name a new folder or one experiment; {path} holds a sweep. Go "
            f"on with 'mpilayer run {file} --resume auto', or choose another name."
        )
    if is_experiment(path) and resume:
        data = plan_of(file, before).data
        if data.source and plan.data.source and plan.data_path.exists():
            check_same(data, plan.data, ("path",))
        RunDirectory(path).set_complete(NAME, False)
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not is_experiment(path):
            raise ConfigError(
                f"--run must name a new folder or an experiment; {path} holds other "
                "files. Choose another name."
            )
        if not replace_run:
            raise ConfigError(
                f"--run must name a new folder; {path} holds an experiment already. Go "
                "on with --resume auto, begin anew with --replace, or choose another "
                "name."
            )
        for folder in {*FOLDERS.values()}:
            if (path / folder).is_dir() and at_work(path / folder):
                raise ConfigError(
                    "--replace needs a run in which nobody is at work; a launch is, "
                    f"in {path / folder}. Wait until it has ended, or end it."
                )
        if others := sorted({p.name for p in path.iterdir()} - CONTENT - {report}):
            raise ConfigError(
                f"--replace removes an experiment and nothing else; {path} holds other "
                f"files ({', '.join(others[:3])}). Move them, or choose another --run."
            )
        for name in (*CONTENT, report):
            remove(path / name)
    write_first(path, plan.write)


def write_first(path: Path, write: Callable[[], None]) -> None:
    """Make the folder of results and ``write`` its settings; a ConfigError if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise ConfigError(
            f"{path} must be a folder that can be written; {error.strerror}. Choose "
            "another --run."
        ) from error


def check_source(plan: Plan) -> None:
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
        f"the data set must be there, or [data] must say its source; {path} is not a "
        "file. Give --set data.path=DATA.h5."
    )


def _check_with_data(plan: Plan, hosts: Sequence[str]) -> None:
    """Check all steps against the data and the ranks' hosts, before the first one."""
    with Dataset.open(plan.data_path) as dataset:
        n_visible = dataset.n_visible
        if plan.task and plan.task != "autoencode":
            rows.check_all_labels(dataset, plan.task)
    for step in plan.steps:
        config = plan.training.get(step)
        if isinstance(config, SparseConfig):
            averages = step == "compare" or config.kl == "average"
            rows.sparse_facts(plan.data_path, config, averages)
        elif isinstance(config, PretrainConfig):
            places_for(config, hosts)
            for index, shape in enumerate(layer_shapes(config, n_visible)):
                check_layer(config, shape, index)
        elif isinstance(config, FinetuneConfig):
            below = plan.training["pretrain"]
            if config.task == "autoencode":
                check_loss(config.loss, below.visible)
            shapes = layer_shapes(below, n_visible)
            check_ranks(resolved(config, shapes, hosts), shapes, hosts)
        if isinstance(config, PretrainConfig | FinetuneConfig):
            rows.data_facts(plan.data_path, config.minibatch, step)


def _split(plan: Plan, task: str | None) -> str:
    """Return the split to evaluate on, for a predictor one that has labels."""
    with Dataset.open(plan.data_path) as dataset:
        predicts = task not in (None, "autoencode")
        known = rows.labelled_splits(dataset) if predicts else dataset.splits
    return plan.experiment.split if plan.experiment.split in known else "train"
