"""The command line called in this process: for commands that train nothing."""

import io
import signal
import time
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from mpilayer.cli.main import main
from tests.support.launch import Result


def call(*arguments: object, cwd: Path) -> Result:
    """Return how a command ended, and what it has said."""
    begun, before = time.monotonic(), signal.getsignal(signal.SIGINT)
    with (
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
        warnings.catch_warnings(action="always"),
        chdir(cwd),
    ):
        try:
            code = main([str(word) for word in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGINT, before)
    return Result(code, out.getvalue(), err.getvalue(), time.monotonic() - begun)
