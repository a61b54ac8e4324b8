"""A whole experiment: data, training, evaluation, in one launch that can go on.

::

    experiment.toml          the effective settings; serves as EXPERIMENT.toml
    data.h5                  the data set, if it was made here
    deep/                    the run of pretrain and finetune
    sparse/, compare/        the runs of these steps
    evaluate.json            errors of all models, with the PCA errors beside them
    complete                 the steps that have come to their end, one a line
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from mpilayer import interrupt
from mpilayer.config import (
    STEPS,
    Config,
    DataConfig,
    ExperimentConfig,
    FinetuneConfig,
    PretrainConfig,
    ReportConfig,
    SparseConfig,
    as_values,
    from_values,
    read_sections,
    to_toml,
    value_from_text,
)
from mpilayer.data.dataset import Dataset
from mpilayer.errors import ConfigError, DataError, unknown
from mpilayer.interrupt import Interrupted
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.start import place
from mpilayer.runs import compare, finetune, pretrain, sparse
from mpilayer.runs.directory import RunDirectory, write_text
from mpilayer.runs.making import make_data, patch_range
from mpilayer.runs.resuming import check_same, noted_threads
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import TASKS
from mpilayer.runs.use import evaluate
from mpilayer.train.layer import check_layer, layer_shapes

NAME = "experiment"
"""What ``complete`` says when all steps have come to their end."""

FOLDERS = ("deep", "sparse", "compare")
"""Where the runs are, in the order of their steps."""

SECTIONS: Mapping[str, type[Any]] = {
    "experiment": ExperimentConfig,
    "data": DataConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "sparse": SparseConfig,
    "compare": SparseConfig,
    "report": ReportConfig,
}
"""Sections of the file, and what decides each."""

TRAINING = ("pretrain", "finetune", "sparse", "compare")

_FILE = "experiment.toml"
_DATA = "data.h5"
_EVALUATION = "evaluate.json"
_CONTENT = frozenset({_FILE, _DATA, *FOLDERS, _EVALUATION, "complete"})
_THREADS = {"sparse": 1, "compare": 1}
_FOLDER = {"pretrain": "deep", "finetune": "deep"}


@dataclass(frozen=True)
class Plan:
    """What an experiment does.

    Attributes
    ----------
    experiment, data, report : dataclass
        Their sections.
    training : mapping of str to dataclass
        Settings of the training steps that have a section.
    steps : tuple of str
        In their order.
    """

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
        return Path(self.data.path or self.path / _DATA)

    def mark(self, step: str) -> str:
        """Return what a training step's run calls it."""
        task = getattr(self.training[step], "task", None)
        return TASKS[task].name if task else step

    def folder(self, step: str) -> Path:
        """Return the run directory of a training step."""
        return self.path / _FOLDER.get(step, step)


Shown = Callable[[str, Path, dict[str, Any]], object]
"""Shows what a step has reached: its name, its run directory, its summary."""

Report = Callable[[Plan], tuple[bool, str]]
"""Writes the report; returns whether it did, and a line that says where it is."""


def is_experiment(path: Path) -> bool:
    """Tell whether a directory is that of an experiment. Local."""
    return (path / _FILE).is_file()


def read_plan(file: Path, changes: Iterable[str] = (), run: Path | None = None) -> Plan:
    """Read and check an experiment.

    Parameters
    ----------
    file : Path
        The TOML file.
    changes : iterable of str
        ``section.key=value``, over what the file says.
    run : Path, optional
        The directory of all results, over what the file says.

    Raises
    ------
    ConfigError
        A wrong section, key, type or range; steps that do not go together.
    """
    sections = read_sections(file, tuple(SECTIONS))
    for change in changes:
        section, key, value = _change(change)
        sections.setdefault(section, {})[key] = value
    if "compare" in sections:
        sections["compare"] = {**sections.get("sparse", {}), **sections["compare"]}
    configs = {
        name: _config(file, name, cls, sections.get(name, {}))
        for name, cls in SECTIONS.items()
    }
    training = {name: configs[name] for name in TRAINING if name in sections}
    first: ExperimentConfig = configs["experiment"]
    name = first.name or file.stem
    path = str(run) if run else first.run or str(Path("runs") / name)
    plan = Plan(
        replace(first, name=name, run=path),
        configs["data"],
        configs["report"],
        training,
        _steps(first.steps, sections),
    )
    _check(plan, file)
    return plan


def run_experiment(
    plan: Plan,
    session: Session,
    shown: Shown,
    report: Report,
    threads: int = 0,
    replace_run: bool = False,
) -> None:
    """Carry out all steps that are not complete.

    Parameters
    ----------
    plan : Plan
        Equal on all ranks.
    session : Session
        The ranks. Collective on all of them.
    shown, report : callable
        Called on rank 0.
    threads : int
        BLAS threads of each rank; 0: as each step began, or its usual ones.
    replace_run : bool
        A former experiment gives way.

    Raises
    ------
    MpilayerError
        On every rank.
    Interrupted
        On every rank, after saving.
    """
    comm = session.comm
    directory = comm.on_root(lambda: _open(plan, session.safety.resume, replace_run))
    with session.listening():
        for number, step in enumerate(plan.steps, 1):
            if any(comm.allgather(session.must_stop(0.0))):
                raise _interrupted(step)
            session.say(f"step {number} of {len(plan.steps)}: {step}")
            try:
                complete = _carry_out(
                    plan, step, directory, session, shown, report, threads
                )
            except Interrupted:
                raise _interrupted(step) from None
            _note(directory, step, complete, session)
    comm.on_root(lambda: _end(plan, directory))


def to_sections(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the effective settings by section."""
    own = {"experiment": plan.experiment, "data": plan.data, "report": plan.report}
    return {
        name: as_values(config) for name, config in {**own, **plan.training}.items()
    }


def _change(text: str) -> tuple[str, str, Any]:
    """Return section, key and value of a ``--set``."""
    place, equals, value = text.partition("=")
    section, dot, key = place.strip().partition(".")
    if not (equals and dot):
        raise ConfigError(
            f"--set needs SECTION.KEY=VALUE; got {text!r}. Give for example "
            "--set finetune.epochs=3."
        )
    if section not in SECTIONS:
        raise ConfigError(f"--set {text}: {unknown('section', section, SECTIONS)}")
    types = get_type_hints(SECTIONS[section])
    if key not in types:
        raise ConfigError(f"--set {text}: {unknown('key', key, types)}")
    try:
        return section, key, _from_text(types[key], value.strip())
    except ValueError:
        raise ConfigError(
            f"--set {text}: {key} must be {_kind(types[key])}; got {value!r}. See "
            f"'mpilayer config {'experiment' if section != 'compare' else 'sparse'}'."
        ) from None


def _from_text(type_: Any, text: str) -> Any:
    if type_ is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    return value_from_text(type_, text)


def _kind(type_: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(type_, "a list of numbers")


def _config(
    file: Path, section: str, cls: type[Config], values: Mapping[str, Any]
) -> Config:
    try:
        return from_values(cls, values)
    except ConfigError as error:
        raise ConfigError(f"{file}, [{section}]: {error}") from error


def _steps(given: tuple[str, ...], sections: Mapping[str, Any]) -> tuple[str, ...]:
    usual = {"data", "evaluate", "report", *sections}
    chosen = usual if given == ("auto",) else set(given)
    return tuple(step for step in STEPS if step in chosen or step == "data")


def _check(plan: Plan, file: Path) -> None:
    """Check what concerns several sections."""
    trains = [step for step in plan.steps if step in TRAINING]
    if not trains:
        raise ConfigError(
            f"{file} must train something; it has none of the sections "
            f"{', '.join(TRAINING)}. See 'mpilayer config experiment'."
        )
    if "auto" in plan.experiment.steps and len(plan.experiment.steps) > 1:
        raise ConfigError(
            f"{file}: steps must be auto alone, or steps; got "
            f"{', '.join(plan.experiment.steps)}. Leave auto out."
        )
    for step in trains:
        if step not in plan.training:
            raise ConfigError(
                f"{file}: step {step} needs the section [{step}]; there is none. Add "
                "it; it may be empty."
            )
    if "finetune" in trains and "pretrain" not in trains:
        raise ConfigError(
            f"{file}: step finetune needs pretrain before it; found "
            f"{', '.join(trains)}. Add the section [pretrain]."
        )
    fine = plan.training.get("finetune")
    if isinstance(fine, FinetuneConfig) and fine.task != "autoencode":
        raise ConfigError(
            f"{file}: an experiment fine-tunes the autoencoder; found finetune.task "
            f"{fine.task!r}. Leave it out, and afterwards start 'mpilayer finetune DIR "
            f"--task {fine.task}'."
        )
    if not (plan.data.path or plan.data.source):
        raise ConfigError(
            f"{file}: [data] must say path, source or both; it says neither. Add it, "
            "or give --set data.path=DATA.h5."
        )
    patch_range(plan.data.range)
    _check_report(plan, file)


def _check_report(plan: Plan, file: Path) -> None:
    name = Path(plan.report.file)
    if name.name != plan.report.file or name.name in _CONTENT:
        raise ConfigError(
            f"{file}: [report] file must be a new name beside the results; got "
            f"{plan.report.file!r}. Give for example file = 'report.html'."
        )


def _open(plan: Plan, resume: bool, replace_run: bool) -> RunDirectory:
    """Make the directory, or look whether it can go on; on rank 0."""
    path = plan.path
    if is_experiment(path) and resume:
        _check_data(plan)
        directory = RunDirectory(path)
        directory.set_complete(NAME, False)
        return directory
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        _check_replaceable(plan, replace_run)
        for name in (*_CONTENT, plan.report.file):
            _remove(path / name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write(plan)
    except OSError as error:
        raise ConfigError(
            f"{path} must be a folder that can be written; {error.strerror}. Choose "
            "another --run."
        ) from error
    return RunDirectory(path)


def _check_replaceable(plan: Plan, replace_run: bool) -> None:
    path = plan.path
    if not is_experiment(path):
        raise ConfigError(
            f"--run must name a new folder or an experiment; {path} holds other files. "
            "Choose another name."
        )
    others = sorted({p.name for p in path.iterdir()} - _CONTENT)
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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_data(plan: Plan) -> None:
    """Check that an experiment that goes on wants the data that it has made."""
    before = read_plan(plan.path / _FILE).data
    if before.source and plan.data.source and plan.data_path.exists():
        check_same(before, plan.data, ("path",))


def _write(plan: Plan) -> None:
    write_text(plan.path / _FILE, to_toml(to_sections(plan)))


def _note(directory: RunDirectory, step: str, complete: bool, session: Session) -> None:
    session.comm.on_root(lambda: directory.set_complete(step, complete))


def _end(plan: Plan, directory: RunDirectory) -> None:
    _write(plan)
    directory.set_complete(NAME)


def _carry_out(
    plan: Plan,
    step: str,
    directory: RunDirectory,
    session: Session,
    shown: Shown,
    report: Report,
    threads: int,
) -> bool:
    """Do one step if it is not complete; return whether it is now. Collective."""
    comm = session.comm
    if step == "data":
        comm.on_root(lambda: _make_data(plan, session.say))
        comm.on_root(lambda: _check_with_data(plan))
    elif step in TRAINING:
        own = _session(plan, step, session, threads)
        before = comm.on_root(lambda: _result(plan, step))
        result = _train(plan, step, own)
        if result != before:
            comm.on_root(lambda: _outdate(directory))
        if comm.rank == 0:
            shown(step, plan.folder(step), result)
    elif comm.on_root(lambda: directory.is_complete(step)):
        session.say(f"{step} is complete; there is nothing to do")
    elif step == "evaluate":
        results = _evaluate(plan, session)
        comm.on_root(lambda: write_text(plan.path / _EVALUATION, _json(results)))
        if comm.rank == 0:
            shown(step, plan.path, results)
    else:
        written, line = comm.on_root(lambda: report(plan))
        session.say(line)
        return written
    return True


def _make_data(plan: Plan, say: Callable[[str], None]) -> None:
    path = plan.data_path
    if path.is_file():
        return
    if not plan.data.source:
        raise DataError(
            f"the data set must be there, or [data] must say its source; {path} is no "
            "file. Give --set data.path=DATA.h5."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"making {path} from {plan.data.source}")
    make_data(plan.data, path)


def _check_with_data(plan: Plan) -> None:
    """Check the settings of all steps against the data, before the first one."""
    with Dataset.open(plan.data_path) as dataset:
        n_train, n_visible = dataset.n_samples("train"), dataset.n_visible
    for step in plan.steps:
        config = plan.training.get(step)
        if isinstance(config, SparseConfig):
            sparse.facts_of(plan.data_path, config)
        elif isinstance(config, PretrainConfig):
            for shape in layer_shapes(config, n_visible):
                check_layer(config, shape)
        elif isinstance(config, FinetuneConfig) and config.task == "autoencode":
            check_loss(config.loss, plan.training["pretrain"].visible)
        if isinstance(config, PretrainConfig | FinetuneConfig):
            _check_minibatch(step, config.minibatch, n_train)


def _check_minibatch(step: str, minibatch: int, n_train: int) -> None:
    if minibatch > n_train:
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {minibatch} in "
            f"[{step}] with {n_train} training rows. Give a smaller minibatch."
        )


def _session(plan: Plan, step: str, session: Session, threads: int) -> Session:
    """Return the ranks with the threads of a step, which goes on if it can."""
    comm = session.comm
    noted = comm.on_root(lambda: noted_threads(plan.folder(step), plan.mark(step)))
    return replace(
        session,
        safety=replace(session.safety, resume=True),
        placement=place(comm, threads or noted or _THREADS.get(step, 0)),
    )


def _train(plan: Plan, step: str, session: Session) -> dict[str, Any]:
    """Train to the end, from where the step was. Collective."""
    run, data, config = plan.folder(step), plan.data_path, plan.training[step]
    if step == "pretrain":
        return pretrain.pretrain(data, run, config, session)
    if step == "finetune":
        return finetune.run_finetune(run, config, session, data)
    if step == "sparse":
        return sparse.run_sparse(data, run, config, session)
    result = session.comm.on_root(lambda: _comparison(run, config))
    return result or compare.run_compare(data, run, config, session)


def _comparison(run: Path, config: SparseConfig) -> dict[str, Any]:
    """Return what a comparison has found, nothing if it is not complete."""
    directory = RunDirectory(run)
    if not directory.is_complete(compare.NAME):
        return {}
    check_same(sparse.sparse_config(directory), sparse.effective(config), ())
    result: dict[str, Any] = json.loads((run / "compare.json").read_text())
    return result


def _result(plan: Plan, step: str) -> dict[str, Any]:
    """Return what a step has found before, nothing if it is not complete."""
    directory = RunDirectory(plan.folder(step))
    if not directory.is_complete(plan.mark(step)):
        return {}
    if step == "compare":
        return _comparison(directory.path, plan.training[step])
    return directory.read_summary()


def _outdate(directory: RunDirectory) -> None:
    """Note that what depends on the training is to be done again."""
    for step in ("evaluate", "report"):
        directory.set_complete(step, False)


def _evaluate(plan: Plan, session: Session) -> dict[str, Any]:
    """Return the errors of all models by their folders. Collective."""
    runs: list[str] = []
    for folder in dict.fromkeys(_FOLDER.get(s, s) for s in plan.training):
        both = ("compare/average", "compare/exact")
        runs += both if folder == "compare" else (folder,)
    split = session.comm.on_root(lambda: _split(plan))
    return {
        name: evaluate(plan.path / name, split, session, plan.data_path)
        for name in runs
        if (plan.path / name).is_dir()
    }


def _split(plan: Plan) -> str:
    with Dataset.open(plan.data_path) as dataset:
        has = plan.experiment.split in dataset.splits
    return plan.experiment.split if has else "train"


def _interrupted(step: str) -> Interrupted:
    reason = interrupt.requested() or "the time limit"
    return Interrupted(
        f"saved and stopped in step {step} because of {reason}; go on with the same "
        "command and --resume auto"
    )


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
