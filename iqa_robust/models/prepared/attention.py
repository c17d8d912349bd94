"""Self-attention of `torch.nn.MultiheadAttention` without its detour through sequence-first tensors.

With frozen weights, PyTorch multiplies that transposed input by a copy of the weights per position: on a CPU a vision
transformer spends most of its time on copies, in bfloat16 nearly all of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Stands in for a `torch.nn.MultiheadAttention` in evaluation mode, with its weights; gives the same numbers.

    What is not plain self-attention of a batch (masks, weights asked for, other keys than queries) goes to the layer.
    """

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        """`layer` must be `fits`."""
        super().__init__()
        self.layer = layer

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether a module is such a layer, batch first, with one projection and no extra keys."""
        return (
            type(layer) is nn.MultiheadAttention
            and layer.batch_first
            and layer.in_proj_weight is not None
            and layer.bias_k is None
            and not layer.add_zero_attn
        )

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, need_weights: bool = True, **masks: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As of the layer: (N, L, E) and, where asked for, the weights."""
        plain = query is key is value and query.ndim == 3 and not any(mask is not None for mask in masks.values())
        if need_weights or not plain:
            attended: tuple[torch.Tensor, torch.Tensor | None] = self.layer(
                query, key, value, need_weights=need_weights, **masks
            )
            return attended
        layer = self.layer
        projected = F.linear(query, layer.in_proj_weight, layer.in_proj_bias)
        heads = projected.unflatten(2, (3, layer.num_heads, layer.head_dim)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0))
        return layer.out_proj(mixed.transpose(1, 2).flatten(2)), None
