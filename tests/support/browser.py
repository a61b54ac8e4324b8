"""Chromium without a screen, led through two pipes: what a page does and looks like.

The DevTools protocol needs nothing but JSON: messages end with a zero byte, commands go
to the browser's file descriptor 3, answers and events come from 4. No network: every
name fails to resolve.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager

import pytest

_LIMIT = 60.0
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"),
)

_HOME = "--user-data-dir="


class Browser:
    """A page in Chromium; ``events`` are what it has told without being asked."""

    def __init__(self, commands, answers):
        self._commands, self._answers = commands, answers
        self._buffer, self._number, self._where = b"", 0, {}
        self.events = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._where = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Send a command, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._commands, json.dumps(message | self._where).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, path, width=1280, dark=False):
        """Load a page from a file, at a width, and wait until it is there."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        while not self._told("Page.loadEventFired"):
            self.events.append(self._receive())

    def value(self, expression):
        """Return what an expression of JavaScript gives."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self):
        """Return what stands on the console, errors of the page included."""
        console = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return self._told(*console, "Log.entryAdded")

    def requests(self):
        """Return the addresses that were asked for."""
        sent = self._told("Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def print(self):
        """Return the page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF")["data"])

    def _told(self, *methods):
        return [event for event in self.events if event.get("method") in methods]

    def _receive(self):
        end = time.monotonic() + _LIMIT
        while b"\0" not in self._buffer:
            left = end - time.monotonic()
            if not select.select([self._answers], [], [], max(0.0, left))[0]:
                pytest.fail(f"no answer from Chromium within {_LIMIT} s")
            news = os.read(self._answers, 1 << 20)
            assert news, "Chromium has ended"
            self._buffer += news
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser():
    """Start Chromium; skip, with the reason, where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Debian's chromium")
    ours, theirs = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # A shell puts the pipes where the browser looks for them.
        script = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        process = subprocess.Popen(
            ["bash", "-c", script, "chromium", program, *_FLAGS, _HOME + home],
            pass_fds=(ours[0], theirs[1]),
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
            start_new_session=True,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            yield Browser(ours[1], theirs[0])
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours[1])
            os.close(theirs[0])
