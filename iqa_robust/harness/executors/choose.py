"""The executor that the command line asks for."""

from __future__ import annotations

import math
import os

import torch

from iqa_robust.errors import RequestError
from iqa_robust.harness.environment import pick_device
from iqa_robust.harness.executors.base import Executor
from iqa_robust.harness.executors.here import Here
from iqa_robust.harness.executors.processes import Processes


def choose(name: str, *, workers: int | None, device: str, ray_address: str | None = None) -> Executor:
    """An executor.

    Args:
        name: `local` or `ray`.
        workers: how many; None is one per GPU; without GPUs one for `local`, all the cluster has room for with `ray`.
        device: `auto`, `cpu` or `cuda`.
        ray_address: a Ray cluster to join.

    Raises:
        RequestError: Ray is not installed, the device cannot be had, or an address without Ray.
    """
    if name == "ray":
        from iqa_robust.harness.executors.ray_actors import RayActors

        return RayActors(workers, threads_for(workers), ray_address)
    if ray_address is not None:
        raise RequestError(f"--ray-address {ray_address}: only Ray has an address; add --executor ray.")
    if workers is None:
        workers = torch.cuda.device_count() if pick_device(device).type == "cuda" else 1
    return Here() if workers == 1 else Processes(workers, threads_for(workers))


def sharing(executor: Executor, device: torch.device) -> int:
    """How many workers, at most, share the memory of one GPU, or on a CPU that of one machine."""
    if isinstance(executor, Processes):
        return math.ceil(executor.workers / (torch.cuda.device_count() if device.type == "cuda" else 1))
    cores = os.cpu_count() or 1
    # Ray gives an actor a GPU of its own, and a machine no more actors than it has cores.
    return 1 if device.type == "cuda" else min(executor.workers or cores, cores)


def threads_for(workers: int | None) -> int:
    """Threads of torch in each worker: what `OMP_NUM_THREADS` says, else this machine's cores shared out.

    One thread each where the number of workers is not known yet. The number of threads can change the order of float32
    sums, and so the last digits of a score; the number of workers by itself changes nothing.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    return 1 if workers is None else max(1, torch.get_num_threads() // workers)
