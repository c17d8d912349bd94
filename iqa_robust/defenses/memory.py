"""Gradients of long filters in little memory: what a step computed is computed again when its slope is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(step: Callable[..., Any], *arguments: Any) -> Any:
    """`step(*arguments)`, of which only the arguments are kept for the backward pass. `step` must not draw."""
    if not torch.is_grad_enabled():
        return step(*arguments)
    return checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False)
