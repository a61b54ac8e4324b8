"""Writing while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from mpilayer.parallel.comm import wait_until


class Writer:
    """Does one piece of writing at a time, in a thread. Local.

    What is written must not change meanwhile: give it copies.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Start some writing, when the last is done; see ``finish``."""
        self.finish()
        self._under_way = self._thread.submit(work)

    def finish(self) -> None:
        """Wait until everything is written.

        Raises
        ------
        MpilayerError
            What the last writing has raised.
        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            # Not by its lock, in which a rank would be deaf to signals, and silent.
            wait_until(under_way.done)
            under_way.result()
