"""What a run was trained with, read back from its ``config.toml``."""

import re

from mpilayer import __version__
from mpilayer.config import Config, from_values
from mpilayer.errors import CheckpointError, ConfigError
from mpilayer.runs.directory import RunDirectory


def settings_of(directory: RunDirectory, section: str, cls: type[Config]) -> Config:
    """Return the settings that a section of a run's ``config.toml`` holds. Local.

    Parameters
    ----------
    directory : RunDirectory
        The run.
    section : str
        Its name.
    cls : type
        What it is read as.

    Raises
    ------
    CheckpointError
        There is no such section, or it has what this version does not know: another
        one has written it.
    """
    path, sections = directory.path / "config.toml", directory.read_config()
    values = sections.get(section)
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} must have what training wrote; the section [{section}] is "
            "missing. Restore it, or train again."
        )
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return from_values(cls, lists)
    except ConfigError as error:
        by = sections.get("created_by", {}).get("mpilayer", "an unknown version")
        found = re.split(r"; choose from|; it belongs|\. Did you mean", str(error))[0]
        raise CheckpointError(
            f"{path}, [{section}], must hold what mpilayer {__version__} knows; found "
            f"{found}. It was written by mpilayer {by}: use that one, or a newer one."
        ) from error
