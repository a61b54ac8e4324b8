"""Going on with an interrupted run, whatever it was doing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mpilayer.runs import compare, descending, finetune, pretrain, sparse
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Session
from mpilayer.runs.tasks import begun_last, task_of_command


def resume(
    run: Path, session: Session, data: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """Go on with a run where it was, to the end of the command that began last.

    Parameters
    ----------
    run : Path
        The run directory.
    session : Session
        The ranks; perhaps another number than before. Collective on all of them.
    data : Path, optional
        Where the data set is now.

    Returns
    -------
    str, dict
        The command, and its summary.

    Raises
    ------
    MpilayerError
        On every rank, before training: no run, other data, no whole checkpoint.
    """
    comm = session.comm
    session = replace(session, safety=replace(session.safety, resume=True))
    command = comm.on_root(lambda: command_of(run))
    if command == compare.NAME:
        return command, compare.resume_compare(run, session, data)
    if command == descending.NAME:
        return command, sparse.resume_sparse(run, session, data)
    if command != pretrain.NAME:
        config = comm.on_root(
            lambda: task_of_command(command).config(RunDirectory(run))
        )
        return command, finetune.run_finetune(run, config, session, data)
    summary = pretrain.resume_pretraining(run, session, data)
    if comm.on_root(lambda: command_of(run)) != command:
        # What pre-training had left was lost, after fine-tuning had begun.
        return resume(run, session, data)
    return command, summary


def command_of(run: Path) -> str:
    """Return what a run was doing last. Local.

    Raises
    ------
    CheckpointError
        There is no run.
    """
    directory = RunDirectory.open(run)
    sections = directory.read_config()
    for name in (compare.NAME, descending.NAME):
        if name in sections:
            return name
    task = begun_last(directory)
    if task is None:
        return pretrain.NAME
    alone = task.config(directory).from_scratch and not directory.is_complete(task.name)
    return task.name if alone or directory.is_complete(pretrain.NAME) else pretrain.NAME
