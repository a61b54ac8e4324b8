"""Going on with an interrupted run, whatever it was doing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mpilayer.runs.compare import Comparison
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import Training
from mpilayer.runs.finetune import Finetuning
from mpilayer.runs.pretrain import Pretraining
from mpilayer.runs.session import Session
from mpilayer.runs.sparse import SparseTraining
from mpilayer.runs.tasks import (
    COMPARE,
    PRETRAIN,
    SPARSE,
    TASKS,
    command_of,
    task_of_command,
)

TRAININGS: dict[str, type[Training[Any]]] = {
    PRETRAIN: Pretraining,
    **{task.name: Finetuning for task in TASKS.values()},
    SPARSE: SparseTraining,
    COMPARE: Comparison,
}
"""The trainings, by their marks."""


def resume(
    run: Path, session: Session, data: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """Go on with a run where it was, to the end of the command that began last.

    Collective; perhaps on another number of ranks than before. ``data`` says where the
    data set is now. Returns the command, and its summary.

    Raises
    ------
    MpilayerError
        On every rank, before training: no run, other data, no whole checkpoint.
    """
    comm = session.comm
    session = replace(session, safety=replace(session.safety, resume=True))

    def look() -> tuple[str, Any]:
        command = command_of(run)
        if TRAININGS[command] is not Finetuning:
            return command, None
        return command, task_of_command(command).config(RunDirectory(run))

    command, config = comm.on_root(look)
    summary = TRAININGS[command](run, session, config, data).drive()
    if command == PRETRAIN and comm.on_root(lambda: command_of(run)) != command:
        # What pre-training had left was lost, after fine-tuning had begun.
        return resume(run, session, data)
    return command, summary
