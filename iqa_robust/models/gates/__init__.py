"""Gates on feature maps, by name: channels or values that are held to be non-causal are turned down."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from iqa_robust.errors import RequestError
from iqa_robust.models.gates.base import Gate
from iqa_robust.models.gates.cas import CAS
from iqa_robust.models.gates.cifs import CIFS
from iqa_robust.models.gates.ensemble import Ensemble
from iqa_robust.models.gates.random_channels import RandomChannels
from iqa_robust.models.gates.soft_rank_gate import SoftRankGate
from iqa_robust.models.gates.sort_mask import SortMask
from iqa_robust.models.gates.squeeze_excitation import SqueezeExcitation

GATES: Mapping[str, type[Gate]] = MappingProxyType(
    {
        "cas": CAS,
        "cifs": CIFS,
        "ensemble": Ensemble,
        "random": RandomChannels,
        "soft-rank": SoftRankGate,
        "sort-mask": SortMask,
        "squeeze-excitation": SqueezeExcitation,
    }
)


def create_gate(name: str, channels: int, **params: Any) -> Gate:
    """The gate of that name for feature maps of so many channels; `members` of an `ensemble` are tables, as gates are.

    Raises:
        RequestError: the name or a parameter is unknown, or a value is out of range.
    """
    if name not in GATES:
        raise RequestError(f"gate: expected one of {', '.join(GATES)}, got {name!r}.")
    known = [key for key in inspect.signature(GATES[name]).parameters if key != "channels"]
    for key in params:
        if key not in known:
            takes = ", ".join(known) or "no parameters"
            raise RequestError(f"gate {name!r}: unknown parameter {key!r}; it takes {takes}.")
    try:
        if "members" in params:
            params = {**params, "members": [_member(member, channels) for member in params["members"]]}
        return GATES[name](channels, **params)
    except TypeError as error:
        raise RequestError(f"gate {name!r}: a parameter is of the wrong kind ({error}).") from error


def _member(described: Mapping[str, Any], channels: int) -> Gate:
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise RequestError(f"gate 'ensemble': members: expected tables with the name of a gate, got {described!r}.")
    params = {key: value for key, value in described.items() if key != "name"}
    if "channels" in params:
        raise RequestError("gate 'ensemble': members: their `channels` are those of the ensemble; leave the key out.")
    return create_gate(described["name"], channels, **params)
