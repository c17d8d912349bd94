"""What is left to do for a batch, done on a thread of its own while the next batch is attacked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Behind:
    """One piece of work at a time, in the order given; a context manager at whose end all of it is done.

    Memory is bounded: whoever hands over the next piece waits for the last one. What a piece raises is raised then, or
    at the end of the block; a block that is left by an error still finishes its last piece, which would else be lost.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="iqa-robust-behind")
        self._last: tuple[Future[Any], Callable[[], None]] | None = None

    def do(self, work: Callable[[], Any], done: Callable[[], None]) -> None:
        """Start `work` on the thread; `done` is called on the caller's own once it is known to have succeeded."""
        self.wait()
        self._last = self._pool.submit(work), done

    def wait(self) -> None:
        """Until the last piece is done. Raises what it raised."""
        if self._last is not None:
            (future, done), self._last = self._last, None
            future.result()
            done()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)
