"""Soft orthogonality of weights (Bansal et al., NeurIPS 2018): a penalty that keeps layers near preserving norms."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.errors import ContractError


def orthogonality_penalty(network: nn.Module) -> torch.Tensor:
    """Sum over convolutions and products, except the last product, of the mean square of W W^T - I; a scalar >= 0.

    W is the weight with each kernel laid flat in one row; where it has more rows than columns, W^T W is taken, because
    rows cannot all be orthogonal then. Groups of a convolution count as layers of their own, of which the mean is
    taken. The last `nn.Linear` makes the score: its length is the scale of the scores.

    Raises:
        ContractError: the network has no such layer.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    products = [layer for layer in layers if isinstance(layer, nn.Linear)]
    layers = [layer for layer in layers if not products or layer is not products[-1]]
    if not layers:
        raise ContractError("orthogonality_penalty: the network has no convolution and no product before its last one.")
    return torch.stack([_deviation(layer) for layer in layers]).sum()


def _deviation(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    rows = layer.weight.flatten(1).unflatten(0, (groups, -1))
    if rows.shape[1] > rows.shape[2]:
        rows = rows.transpose(1, 2)
    gram = rows @ rows.transpose(1, 2)
    return (gram - torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)).square().mean()
