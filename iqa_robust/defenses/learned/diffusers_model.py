"""Public diffusion pipelines, through the library `diffusers`, which is an extra."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.defenses.learned.diffusion_network import STEPS
from iqa_robust.errors import CheckpointError


class _Noise(nn.Module):
    """A U-Net of the library as our own one is called: steps count from 1, the answer is the noise alone."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.unet(x, t - 1).sample[:, :3]  # further channels are a learned variance


def open_pipeline(name: str) -> tuple[nn.Module, torch.Tensor, int]:
    """An unconditional pixel pipeline (`DDPMPipeline`) from a folder or from the hub.

    Only safetensors are read, and no code of the pipeline's authors is run.

    Args:
        name: a folder, or the id of a pipeline on the hub, which is downloaded where the library has no copy.

    Returns:
        The network `f(x, t)` that predicts the noise in images in [-1, 1] at steps 1..1000; the signal power left
        after 0..1000 steps, (1001,), float64; what the sides of an image must be multiples of.

    Raises:
        CheckpointError: the library is absent, the pipeline cannot be read or reached, or is of another kind.
    """
    try:
        from diffusers import DDPMPipeline
    except ImportError as error:
        raise CheckpointError(
            f"weights 'diffusers:{name}': needs the library diffusers ({error}); install iqa-robust[diffusers]."
        ) from error
    try:
        pipeline = DDPMPipeline.from_pretrained(name, use_safetensors=True)
    except Exception as error:  # missing files, networks and broken configurations fail in many ways inside
        cause = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"weights 'diffusers:{name}': no pipeline with safetensors in that folder, and none could be had from the"
            f" hub ({type(error).__name__}: {cause})."
        ) from error
    unet, scheduler = pipeline.unet, pipeline.scheduler
    steps, kind = scheduler.config.num_train_timesteps, scheduler.config.prediction_type
    if steps != STEPS or kind != "epsilon" or unet.config.in_channels != 3:
        raise CheckpointError(
            f"weights 'diffusers:{name}': expected a model of 3 channels that predicts the noise of {STEPS} steps,"
            f" got {unet.config.in_channels} channels, {kind!r} and {steps} steps."
        )
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), scheduler.alphas_cumprod.double()])
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    return _Noise(unet).eval().requires_grad_(False), alpha_bar, multiple
