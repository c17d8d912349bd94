"""Loading images beside a computation: in threads, in order, and without slowing the computation down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def load_ahead(loads: Iterable[Callable[[], T]], workers: int, ahead: int) -> Generator[T]:
    """What the calls return, in their order; at most `ahead` of them are under way or done before they are asked for.

    Who stops before the end closes the generator: an interrupt while it is left to be collected would be swallowed.
    """
    waiting = iter(loads)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="iqa-robust-load", initializer=_without_a_team)
    try:
        window: deque[Future[T]] = deque(pool.submit(load) for load in islice(waiting, ahead))
        while window:
            result = window.popleft().result()
            yield result
            del result  # the caller's item must not stay alive here while the next one is waited for
            window.extend(pool.submit(load) for load in islice(waiting, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _without_a_team() -> None:
    """Let this thread use OpenMP alone.

    Otherwise its first operation of torch makes a team of as many threads as the machine has cores. GNU's library then
    counts more threads than cores, and all teams of the process sleep between operations where they used to wait
    awake: small operations of the computation took twice as long.
    """
    import torch  # here, because listing datasets needs no torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # at a thread's first question, torch sets it to as many as there are
    threadpool_limits(limits=1, user_api="openmp")
