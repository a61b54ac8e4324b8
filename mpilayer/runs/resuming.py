"""What must be the same for a run to go on: its data and its settings."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpilayer.config import as_values, flag
from mpilayer.data.dataset import Dataset
from mpilayer.errors import CheckpointError, ConfigError, DataError
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.session import Session


def data_of_run(directory: RunDirectory, data: Path | None) -> Path:
    """Return the data set a run was trained on, checked to be the same one.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    data : Path, optional
        Where the data set is now; where it was by default.

    Raises
    ------
    DataError
        Missing, damaged, changed, or not the data the run was pre-trained on.
    """
    trained_on = directory.read_config().get("data", {})
    path = data or Path(trained_on.get("path", ""))
    if not path.is_file():
        raise DataError(
            f"the data set of the run must be there; {path} is not a file. Say where "
            "it is now with --data FILE."
        )
    with Dataset.open(path) as dataset:
        if dataset.digest != trained_on.get("digest"):
            raise DataError(
                f"{path} must be the data set of the run, {trained_on.get('name')!r} "
                f"with digest {str(trained_on.get('digest'))[:12]}; found "
                f"{dataset.name!r} with {dataset.digest[:12]}. Give the right --data."
            )
        dataset.ensure(trained_on.get("stamp", []))
    return path


def data_to_use(directory: RunDirectory, data: Path | None) -> Path:
    """Return a data set of the user's choice, or the one a run was trained on. Local.

    Raises
    ------
    DataError
        Missing, damaged, or changed.
    """
    if data is None:
        return data_of_run(directory, None)
    with Dataset.open(data, like=directory.path) as dataset:
        dataset.ensure()
    return data


def training_data(directory: RunDirectory, data: Path) -> Path | None:
    """Return the data set a run was trained on: this one, or where it was. Local.

    None if it is neither.
    """
    for path in (data, None):
        with suppress(DataError):
            return data_of_run(directory, path)
    return None


def is_run(run: Path, command: str) -> bool:
    """Tell whether there is a run to go on with by a command. Local.

    Raises
    ------
    ConfigError
        There is one, but another command has begun it.
    """
    if not (run / "config.toml").is_file():
        return False
    sections = RunDirectory(run).read_config()
    kinds = {"compare": "a comparison", "sparse": "a sparse run"}
    kind = next((name for name in kinds if name in sections), "pretrain")
    if kind != command:
        raise ConfigError(
            f"--resume auto goes on with what '{command}' has begun; {run} is "
            f"{kinds.get(kind, 'a pre-trained run')}. Go on with 'mpilayer resume "
            f"{run}', or give another --run."
        )
    return True


def launch_facts(command: str, session: Session) -> dict[str, Any]:
    """Return the BLAS threads of each rank: other numbers round differently."""
    return {f"{command}_threads": max(session.placement.threads)}


def noted_threads(run: Path, command: str) -> int:
    """Return the threads a command of a run was begun with, 0 if nobody knows."""
    if not (run / "config.toml").is_file():
        return 0
    launch = RunDirectory(run).read_config().get("launch", {})
    return int(launch.get(f"{command}_threads", 0))


def check_same(run: Any, asked: Any, harmless: Collection[str]) -> None:
    """Check that nothing is asked for that would change a run's result.

    Parameters
    ----------
    run, asked : configuration dataclass
        Of the run, and of this command; None for the latter asks for nothing.
    harmless : collection of str
        Names of settings that may differ.

    Raises
    ------
    ConfigError
        Names every such setting, with both values.
    """
    if asked is None:
        return
    before, now = as_values(run), as_values(asked)
    different = [k for k in before if before[k] != now[k] and k not in harmless]
    if different:
        listing = "; ".join(
            f"{flag(name)} was {_shown(before[name])}, is {_shown(now[name])}"
            for name in different
        )
        raise ConfigError(
            f"a run must go on with the settings it began with; {listing}. Leave them "
            "out, or begin another run."
        )


def check_replicas(parameters: Parameters, comm: Communicator) -> None:
    """Check that all ranks have read the same weights. Collective.

    Raises
    ------
    CheckpointError
        On all ranks, if one has others: the ranks do not see the same files.
    """
    digests = comm.allgather(parameters.digest())
    if len(set(digests)) > 1:
        other = next(rank for rank, d in enumerate(digests) if d != digests[0])
        error = CheckpointError(
            f"all ranks must read the same checkpoint; rank {other} has found another "
            "than rank 0. Put the run where all hosts see the same files."
        )
        error.collective = True
        raise error


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
