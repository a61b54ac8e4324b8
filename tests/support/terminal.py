"""mpilayer on a terminal of 80 columns, whose screen a test reads."""

import os
import pty
import select
import subprocess
import sys
import time

from tests.support import launch


class Terminal:
    """A command on a terminal; it ends with the block."""

    def __init__(self, *arguments, cwd=None, **options):
        self._own, theirs = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, *launch.MODULE, *map(str, arguments)],
            cwd=cwd,
            env=launch.environment() | {"TERM": "xterm", "COLUMNS": "80"},
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            start_new_session=True,
            **options,
        )
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        self.close()

    def wait_for(self, words, seconds=30.0):
        """Read until the words are on the screen, or, for None, until the end."""
        end = time.monotonic() + seconds
        while words is None or words not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self._own], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self._own, 65536).decode(errors="replace")
                except OSError:  # nobody writes any more
                    return

    def assert_ended(self, code=0):
        """Demand that the command ends by itself, without a traceback."""
        self.wait_for(None)
        assert self.process.wait(10) == code
        assert "Traceback" not in self.text

    def close(self):
        """Close the window, if it is open."""
        if self._own is not None:
            os.close(self._own)
        self._own = None
