"""Pruning: channels are switched off before training, the quiet ones or those with the smallest weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from iqa_robust.errors import RequestError
from iqa_robust.models.feature_denoising import FeatureDenoising

REVIVING = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.SELU, nn.SiLU, nn.Softplus, nn.Tanh,
    FeatureDenoising,
)  # fmt: skip
"""What gives a convolution's channel a slope at zero, so that training brings a pruned one back."""


@torch.no_grad()
def prune_quiet(network: nn.Module, batches: Iterable[torch.Tensor], share: float) -> int:
    """Set the least active channels of every convolution to zero, in place; how many in all.

    Activity is the mean of the positive part of a channel over images and places (Liu, Dolan-Gavitt & Garg,
    Fine-Pruning, RAID 2018, there in the last convolution only): a backdoor may sleep in quiet channels, or an attack.
    A channel without weights, before a rectifier, has no slope: later training leaves it at zero.

    Args:
        network: its convolutions are followed by rectifiers, without normalization in between.
        batches: images (N, 3, H, W) of clean data.
        share: of the channels of each convolution, rounded down.

    Raises:
        RequestError: the network normalizes between convolution and rectifier, which would shift a pruned channel, or
            has something else than rectifiers behind its convolutions.
    """
    layers = _convolutions(network)
    activity = dict.fromkeys(layers, torch.zeros(()))
    handles = [layer.register_forward_hook(_add_activity(activity, name)) for name, layer in layers.items()]
    mode = network.training
    network.eval()
    try:
        for images in batches:
            network(images)
    finally:
        network.train(mode)
        for handle in handles:
            handle.remove()
    return sum(_silence(layer, activity[name], share) for name, layer in layers.items())


@torch.no_grad()
def prune_small(network: nn.Module, share: float) -> int:
    """Set the channels with the smallest weights (L2) of every convolution to zero, in place; how many in all.

    Magnitude pruning of whole filters (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, there by L1).
    Arguments and errors as of `prune_quiet`.
    """
    return sum(_silence(layer, layer.weight.flatten(1).norm(dim=1), share) for layer in _convolutions(network).values())


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    if not layers or any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        raise RequestError("recipe: start.prune: expected a network of convolutions without batch normalization.")
    reviving = next((type(module).__name__ for module in network.modules() if isinstance(module, REVIVING)), None)
    if reviving is not None:
        raise RequestError(
            f"recipe: start.prune: training would bring pruned channels back through {reviving}, whose slope at zero is"
            " not zero; take activation = 'relu' without feature_denoising."
        )
    return layers


def _silence(layer: nn.Conv2d, worth: torch.Tensor, share: float) -> int:
    least = worth.argsort(stable=True)[: int(share * layer.out_channels)]
    layer.weight[least] = 0
    if layer.bias is not None:
        layer.bias[least] = 0
    return len(least)


Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]


def _add_activity(activity: dict[str, torch.Tensor], name: str) -> Hook:
    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        activity[name] = activity[name] + output.clamp(min=0).mean(dim=(2, 3)).sum(dim=0)

    return hook
