"""How many images are attacked at once: what the track says, or what the memory holds."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import torch

from iqa_robust.harness.cost import peak_of
from iqa_robust.harness.system import Batch
from iqa_robust.models.base import IQAModel

SHARE = 0.5
"""Of the free memory; the rest is for what attacks and defenses hold besides the model's own."""
MOST_ON_GPU = 256
"""Beyond this a GPU gains nothing more by larger batches."""


def images_at_once(model: IQAModel, batch: Batch, asked: int, free: int | None = None, workers: int = 1) -> int:
    """Images per batch; results do not depend on it, beyond the rounding of kernels that libraries choose by it.

    On a GPU as many as fit, in powers of two, up to `MOST_ON_GPU`: small batches leave it idle. On a CPU what the track
    asks for, since more is no faster, or fewer where these do not fit.

    Args:
        model: the bare model; what a defense needs more is found when memory runs out (batches are then halved).
        batch: example images on the device.
        asked: what the track says.
        free: bytes of memory; None asks the device.
        workers: how many share that memory.
    """
    device = batch.x.device
    x, ref = batch.x[:1], batch.ref[:1] if model.info.full_reference and batch.ref is not None else None
    try:
        needed = peak_of(partial(_differentiate, model, x, ref), device)
    except Exception:  # a model that fails does so in its cells, which say why
        return asked
    room = (_free(device) if free is None else free) * SHARE / workers
    fits = max(1, int(room / max(needed, 1)))
    power = 1 << (fits.bit_length() - 1)
    return min(power, MOST_ON_GPU) if device.type == "cuda" else min(asked, fits)


def _free(device: torch.device) -> int:
    """Bytes that can be had without swapping; a very large number where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError, ValueError):  # there is no such file outside Linux
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62


def _differentiate(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    leaf = x.clone().requires_grad_(True)
    with torch.enable_grad():
        score = model(leaf, ref).sum()
    if score.requires_grad:
        torch.autograd.grad(score, leaf, allow_unused=True)
