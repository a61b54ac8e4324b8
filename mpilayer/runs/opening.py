"""How a new run begins: what its data set says, and the file that lets it go on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpilayer import __version__, files
from mpilayer.data.dataset import Dataset
from mpilayer.runs.directory import PREPARATION, RunDirectory
from mpilayer.runs.holding import holding
from mpilayer.runs.keeping import remove_false_start
from mpilayer.runs.resuming import is_run
from mpilayer.runs.rows import Facts
from mpilayer.runs.session import Session
from mpilayer.runs.tables import write_table
from mpilayer.train.schedule import Schedule


def begin_or_go_on(
    run: Path,
    name: str,
    session: Session,
    begin: Callable[[], dict[str, Any]],
    go_on: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Go on with a run if that is wished and there is one; else begin. Collective.

    Parameters
    ----------
    run : Path
        The run directory, which no other launch may use meanwhile.
    name : str
        The command's section in ``config.toml``.
    session : Session
        The ranks.
    begin, go_on : callable
        Train to the end, and return the summary.
    """
    comm = session.comm
    with holding(run, session):
        if session.safety.resume:
            if comm.on_root(lambda: is_run(run, name)):
                return go_on()
            comm.on_root(lambda: remove_false_start(run))
        return begin()


def open_run(
    data: Path,
    run: Path,
    facts: Facts,
    sections: Mapping[str, Mapping[str, Any]],
    replace_run: bool,
    table: Schedule | None = None,
) -> RunDirectory:
    """Make a run directory; on rank 0.

    Parameters
    ----------
    data, run : Path
        The data set and the folder.
    facts : Facts
        Of the data set.
    sections : mapping
        What else ``config.toml`` says.
    replace_run : bool
        A former run gives way.
    table : Schedule, optional
        What the layers follow.

    Raises
    ------
    DataError
        The data set is damaged, as far as it cannot be seen when rows are read.
    """
    with Dataset.open(data) as dataset:
        dataset.ensure()
        preparation = dataset.preparation
    directory = RunDirectory.create(run, replace_run)
    # Before the configuration: who finds that can go on.
    if table is not None:
        write_table(directory, table)
    if preparation:
        files.write_json(directory.path / PREPARATION, preparation.to_json())
    identity = {
        "path": str(data.absolute()),
        "name": facts.data_name,
        "digest": facts.data_digest,
        "stamp": list(facts.data_stamp),
        "n_visible": facts.n_visible,
    }
    made_by = {"mpilayer": __version__}
    directory.write_config({"data": identity, **sections, "created_by": made_by})
    return directory
