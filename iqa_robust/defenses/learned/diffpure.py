"""`diffpure`: diffusion purification: noise is added up to a step of a diffusion model, which then takes it away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.learned.diffusers_model import open_pipeline
from iqa_robust.defenses.learned.diffusion_network import STEPS, DiffusionUNet, forward_noise, linear_alpha_bar
from iqa_robust.defenses.learned.network_purifier import WEIGHTS
from iqa_robust.defenses.learned.tiles import tiled
from iqa_robust.defenses.parameters import check_whole
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.errors import ContractError
from iqa_robust.models.checkpoints import load, resolve
from iqa_robust.models.learned import build
from iqa_robust.models.randomness import draws

PUBLISHED = {"photos": "diffusion-photos.safetensors"}
PUBLIC = "diffusers:"
"""Prefix of `weights` for a pipeline in the layout of the library `diffusers`."""


@dataclass(frozen=True)
class _Model:
    network: nn.Module
    """`network(x, t)`: the noise in images (N, 3, h, w) at the steps (N,)."""
    alpha_bar: torch.Tensor
    """Signal power left after 0..T steps."""
    multiple: int
    """Sides the network takes are multiples of this."""
    last_step: int
    """The largest step it knows."""


class DiffPure(DifferentiablePurifier):
    """Adds the noise of `t` of 1000 diffusion steps to the image and lets a diffusion model take it away again.

    What is left of a perturbation under the noise is lost with it. The reverse chain is ancestral sampling (Ho et al.,
    2020, equations 6 and 7) over `steps` steps spaced evenly from `t` to 0 (the respacing of Nichol & Dhariwal, 2021);
    `steps = t` is every step, as published. Large images are cut into overlapping tiles, whose predicted noise is
    blended at every step; nothing is resized. The released code resizes every image to 256 x 256 and back.

    Shape: (N, 3, H, W) in [0, 1] -> same, any size. Randomized: noise is drawn per image.
    Surrogate: itself, with the exact gradient through all reverse steps; each step is checkpointed, so memory holds
    the activations of one tile at a time and a gradient costs one more forward pass. Only the clip to [0, 1] is
    passed with slope 1.

    Args:
        weights: `"photos"` (our own small model of photographs, trained by the recipe `diffusion-photos`), the path of
            a checkpoint made by `iqa-robust train`, or `"diffusers:<folder or hub id>"`, an unconditional pixel
            pipeline for the library `diffusers` (an extra).
        t: steps of noise, of 1000. The model `photos` knows the first 200.
        steps: reverse steps, at most `t`; each is one pass of the network.
        tile: largest side of a tile in pixels, a multiple of 32; for a public pipeline, the side it was trained on.
        overlap: overlap of neighboring tiles in pixels, at most half a tile.

    Raises:
        ContractError: a parameter lies outside its range; at first use, `t` is more than the model knows.
        CheckpointError: at first use, when the weights cannot be read, or `diffusers` is needed and absent.
    """

    deterministic: ClassVar[bool] = False
    source = "Nie, Guo, Huang, Xiao, Vahdat, Anandkumar, ICML 2022, arXiv:2205.07460"
    form = "adapted"
    note = "tiled instead of resized; the shipped model is small and knows photographs only"

    def __init__(
        self, *, weights: str = "photos", t: int = 20, steps: int = 4, tile: int = 256, overlap: int = 32
    ) -> None:
        check_whole(self, "t", t, least=1, most=STEPS)
        check_whole(self, "steps", steps, least=1, most=t)
        check_whole(self, "tile", tile, least=64)
        check_whole(self, "overlap", overlap, least=0, most=tile // 2)
        if tile % 32:
            raise ContractError(f"DiffPure: expected tile to be a multiple of 32, got {tile}.")
        self.weights = weights
        self.t = t
        self.steps = steps
        self.tile = tile
        self.overlap = overlap
        self._model: _Model | None = None

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Purified images (N, 3, H, W)."""
        if self._model is None:
            self._model = _open(self.weights)
        model = self._model
        if self.t > model.last_step:
            raise ContractError(
                f"DiffPure: t: the weights {self.weights!r} know the steps up to {model.last_step}, got {self.t}."
            )
        network = model.network.to(x.device)

        def predict(noisy: torch.Tensor, step: int) -> torch.Tensor:
            at = torch.full((len(noisy),), step, device=noisy.device)

            def on_tile(part: torch.Tensor) -> torch.Tensor:
                if not (torch.is_grad_enabled() and part.requires_grad):
                    return network(part, at)
                return checkpoint(network, part, at, use_reentrant=False, preserve_rng_state=False)

            return tiled(on_tile, noisy, tile=self.tile, overlap=self.overlap, multiple=model.multiple)

        rng = draws(len(x), x.device)
        times = [round(self.t * k / self.steps) for k in range(self.steps, -1, -1)]
        noisy = forward_noise(2 * x - 1, rng.normal(x.shape[1:]), model.alpha_bar[self.t])
        restored = reverse(noisy, times, model.alpha_bar, predict, lambda: rng.normal(x.shape[1:]))
        return clamp_value((restored + 1) / 2)


def reverse(
    x: torch.Tensor,
    times: Sequence[int],
    alpha_bar: torch.Tensor,
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    draw: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """Ancestral sampling from the first of `times` down to the last: images (N, 3, H, W) in [-1, 1], unclipped.

    Each step draws from q(x_s | x_t, x_0) (Ho et al., 2020, equation 7, for steps that may be far apart), with the x_0
    that the predicted noise implies. The last step, to 0, is that x_0 itself.

    Args:
        x: noisy images at step `times[0]`.
        times: falling steps.
        alpha_bar: signal power left after 0..T steps, float64.
        predict: the noise in images at a step.
        draw: standard normal noise of the shape of `x`.
    """
    for now, then in pairwise(times):
        a_now, a_then = alpha_bar[now].item(), alpha_bar[then].item()
        implied = (x - (1 - a_now) ** 0.5 * predict(x, now)) / a_now**0.5
        ratio = a_now / a_then
        mean = (a_then**0.5 * (1 - ratio) * implied + ratio**0.5 * (1 - a_then) * x) / (1 - a_now)
        spread = ((1 - ratio) * (1 - a_then) / (1 - a_now)) ** 0.5
        x = mean + spread * draw() if spread > 0 else mean
    return x


def _open(weights: str) -> _Model:
    if weights.startswith(PUBLIC):
        network, alpha_bar, multiple = open_pipeline(weights.removeprefix(PUBLIC))
        return _Model(network, alpha_bar, multiple, STEPS)
    network = cast(DiffusionUNet, build(DiffusionUNet, load(resolve(weights, PUBLISHED, WEIGHTS))))
    return _Model(network.eval().requires_grad_(False), linear_alpha_bar(), network.multiple, network.last_step)
