"""What one clean score costs: time and memory of the system that a cell scores."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iqa_robust.harness.system import Batch
from iqa_robust.models.base import IQAModel

REPEATS = 3
"""Calls that are timed, after one that is not; the fastest counts, since other work only slows a call down."""


@torch.no_grad()
def clean_cost(model: IQAModel, batch: Batch) -> dict[str, float]:
    """Cost of scoring the first image of a batch.

    `milliseconds`: of one call. `memory_mb`: the most that tensors of one call hold at once, in MiB, its input and
    the weights not among them; what other libraries allocate inside a defense is not seen on a CPU.
    """
    x, ref = batch.x[:1], batch.ref[:1] if model.info.full_reference and batch.ref is not None else None
    model(x, ref)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        model(x, ref)
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"milliseconds": 1000 * min(seconds), "memory_mb": peak_of(partial(model, x, ref), x.device) / 2**20}


def peak_of(work: Callable[[], Any], device: torch.device) -> float:
    """The most bytes that tensors made by `work` hold at once on the device."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return float(torch.cuda.max_memory_allocated() - before)
    held = _Held()
    with held:
        work()
    return float(held.most)


class _Held(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size
