"""Training and evaluation mode of networks, and where they are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module within the block; each gets its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model on `device` within the block; afterwards it is where its first tensor was, or on the CPU."""
    home = next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))
    try:
        model.to(device)
        yield
    finally:
        model.to(home)


@contextlib.contextmanager
def comparing_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which batch norm goes on to use the batch's own statistics but does not remember them.

    For a second look at a batch in training: what differs between two images is then what the network makes of them,
    not two masks of dropout, and running averages count every batch once.
    """
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, _BatchNorm)]
    training = [module.training for module, _ in norms]
    with evaluation_mode(model):
        for (module, _), trains in zip(norms, training, strict=True):
            module.training, module.momentum = trains, 0.0
        try:
            yield
        finally:
            for module, momentum in norms:
                module.momentum = momentum
