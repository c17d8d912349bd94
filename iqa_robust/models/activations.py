"""Activations a network can have in place of ReLU: smooth ones have slopes that adversarial training can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from iqa_robust.errors import RequestError

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU, "softplus": partial(nn.Softplus, beta=10.0)}
)
"""`softplus` is log(1 + exp(10 x)) / 10, near ReLU, as in smooth adversarial training (Xie et al., 2020)."""


def replace_relus(network: nn.Module, activation: str) -> None:
    """Put another activation wherever `network` has a ReLU or a ReLU6; `"relu"` leaves it as it is.

    Raises:
        RequestError: the activation is unknown, or there is no layer to replace; functions cannot be.
    """
    if activation not in ACTIVATIONS:
        raise RequestError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    if activation == "relu":
        return
    replaced = False
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # also where two names share one
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(parent, name, ACTIVATIONS[activation]())
                replaced = True
    if not replaced:
        raise RequestError(
            f"activation {activation!r}: expected a network with layers of ReLU to replace, found none; leave"
            " `activation` out."
        )
