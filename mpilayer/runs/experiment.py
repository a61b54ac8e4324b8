"""A whole experiment: data, training, evaluation, in one launch that can go on.

Its directory is described in :mod:`mpilayer.runs.plan`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mpilayer import files, interrupt
from mpilayer.config import (
    FinetuneConfig,
    PretrainConfig,
    SparseConfig,
    to_toml,
)
from mpilayer.data.dataset import Dataset
from mpilayer.data.recipe import make_data
from mpilayer.errors import ConfigError, DataError, FileError
from mpilayer.interrupt import Interrupted
from mpilayer.numerics.losses import check_loss
from mpilayer.parallel.start import place
from mpilayer.runs import compare, finetune, pretrain, sparse
from mpilayer.runs.directory import RunDirectory, check_links, remove
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
from mpilayer.runs.resuming import check_same, noted_threads
from mpilayer.runs.rows import check_all_labels, labelled_splits, like_of
from mpilayer.runs.session import Session
from mpilayer.runs.use import evaluate
from mpilayer.train.layer import check_layer, layer_shapes

NAME = "experiment"
"""What ``complete`` says when all steps have come to their end."""

Shown = Callable[[str, Path, dict[str, Any]], object]
"""Shows what a step has reached: its mark, its run directory, its summary."""

Report = Callable[[Plan], tuple[bool, str]]
"""Writes the report; returns whether it did, and a line that says where it is."""

_WAY_ON = "the same command and --resume auto"
_THREADS = {"sparse": 1, "compare": 1}


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
            except FileError as error:
                error.go_on = _WAY_ON
                raise
            _note(directory, step, complete, session)
    comm.on_root(lambda: _end(plan, directory))


def _open(plan: Plan, resume: bool, replace_run: bool) -> RunDirectory:
    """Make the directory, or look whether it can go on; on rank 0."""
    path = plan.path
    _check_source(plan)
    check_links(path, FOLDERS)
    if is_experiment(path) and resume:
        _check_data(plan)
        directory = RunDirectory(path)
        directory.set_complete(NAME, False)
        return directory
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
    return RunDirectory(path)


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
            shown(plan.mark(step), plan.folder(step), result)
    elif comm.on_root(lambda: directory.is_complete(step)):
        session.say(f"{step} is complete; there is nothing to do")
    elif step == "evaluate":
        results = _evaluate(plan, session)
        text = json.dumps(results, indent=2, allow_nan=False) + "\n"
        comm.on_root(lambda: files.write(plan.path / EVALUATION, text))
        if comm.rank == 0:
            shown(step, plan.path, results)
    else:
        written, line = comm.on_root(lambda: report(plan))
        session.say(line)
        return written
    return True


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
    if result := compare.stored_comparison(run):
        before = sparse.sparse_config(RunDirectory(run))
        check_same(before, config.resolved(), ())
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
    for folder in dict.fromkeys(FOLDER_OF.get(s, s) for s in plan.training):
        both = ("compare/average", "compare/exact")
        runs += both if folder == "compare" else (folder,)
    results = {}
    for name in runs:
        path = plan.path / name
        task = plan.task if name == FOLDER_OF["finetune"] else None
        if path.is_dir():
            split = session.comm.on_root(partial(_split, plan, task))
            results[name] = evaluate(path, split, session, plan.data_path, task)
    return results


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
