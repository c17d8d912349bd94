"""Weights of trunks from the hubs of torchvision and timm, refused where they expect another normalization."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.trunk_plan import first_line, laid_out, plan_of
from iqa_robust.models.trunks import HALVED, NORMALIZATIONS, TIMM


def hub_weights(backbone: str, normalization: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of a backbone, downloaded once by its own library into that library's cache.

    Raises:
        RequestError: there is no such backbone, or its weights expect another normalization.
        CheckpointError: the weights could not be downloaded.
    """
    build = plan_of(backbone).build
    with torch.device("meta"):
        twin = laid_out(build).network
    _check_normalization(backbone, twin, normalization)  # before a download is tried
    try:
        if backbone.startswith(TIMM):
            return build(pretrained=True).network.state_dict()
        from torchvision import models

        return dict(models.get_model(backbone, weights="DEFAULT").state_dict())
    except RequestError:
        raise
    except Exception as error:  # urllib, requests and the hub's own client each have theirs
        raise CheckpointError(
            f"backbone {backbone!r}: its weights could not be downloaded ({type(error).__name__}: {first_line(error)});"
            " give a file under the data root as `start.trunk`, or try again with a network."
        ) from error


def _check_normalization(backbone: str, trunk: nn.Module, normalization: str) -> None:
    """Raise `RequestError` unless the weights of the hub were made for images normalized in this way."""
    mean, deviation = _normalized_by(backbone, trunk)
    fitting = [
        name
        for name, (order, *values) in NORMALIZATIONS.items()
        if order == "RGB"
        and all(math.isclose(a / 255, b) for a, b in zip((*values[0], *values[1]), (*mean, *deviation), strict=True))
    ]
    if normalization not in fitting:
        advice = f"take normalization = {fitting[0]!r}" if fitting else "none of ours is that; take another backbone"
        raise RequestError(
            f"backbone {backbone!r}: its hub weights expect RGB with mean {mean} and deviation {deviation} of full"
            f" scale, got the normalization {normalization!r}; {advice}."
        )


def _normalized_by(backbone: str, trunk: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if backbone.startswith(TIMM):
        stated: Any = trunk.pretrained_cfg
        return tuple(stated["mean"]), tuple(stated["std"])
    if backbone in HALVED:
        return (0.5,) * 3, (0.5,) * 3
    from torchvision import models

    transform = models.get_model_weights(backbone).DEFAULT.transforms()
    return tuple(transform.mean), tuple(transform.std)
