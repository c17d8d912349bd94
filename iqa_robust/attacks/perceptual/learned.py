"""Learned distances between images, through piq; their weights are files that piq fetches once through torch.hub."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from iqa_robust.errors import CheckpointError, ContractError

FILES = {
    "LPIPS": ("vgg16-397923af.pth", "lpips_weights.pt"),
    "DISTS": ("vgg16-397923af.pth", "dists_weights.pt"),
}
"""What torch.hub keeps once piq has been used outside of a run; nothing is downloaded during one."""

SMALLEST = 32
"""Pixels a side: VGG-16 halves an image up to five times."""

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From two batches (N, 3, H, W) to (N,), 0 for equal images; differentiable."""


def distance_for(name: str, x: torch.Tensor) -> Distance:
    """The distance `LPIPS` (of VGG-16) or `DISTS`, for images like `x` (N, 3, H, W).

    Raises:
        CheckpointError: a weight file is not on this machine, or cannot be read.
        ContractError: the images are too small.
    """
    network = _network(name, str(x.device))
    if min(x.shape[-2:]) < SMALLEST:
        raise ContractError(
            f"{name}: expected images of at least {SMALLEST} pixels a side, got {x.shape[-2]} x {x.shape[-1]}."
        )
    return lambda z, y: network(z, y).view(len(z))


@lru_cache(maxsize=4)
def _network(name: str, device: str) -> torch.nn.Module:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [file for file in FILES[name] if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{name}: expected {' and '.join(missing)} in {folder}, where piq keeps them once"
            f' `python -c "import piq; piq.{name}()"` has been run on a machine that may download.'
        )
    import piq

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # piq asks torchvision for the weights in its old way
            network = {"LPIPS": piq.LPIPS, "DISTS": piq.DISTS}[name](reduction="none")
    except Exception as error:
        raise CheckpointError(
            f"{name}: the weight files in {folder} cannot be read ({error}); delete them and fetch them again."
        ) from error
    return network.to(device).eval()
