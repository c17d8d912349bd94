"""Trunks: the convolutional stages of classifiers of torchvision and of timm (extra), and their weights from a hub."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import CheckpointError, RequestError

FAMILIES = (
    "alexnet", "convnext", "densenet", "efficientnet", "mobilenet", "resnet", "resnext", "squeezenet", "vgg",
    "wide_resnet",
)  # fmt: skip
"""Torchvision families that are a plain stack of convolutional stages, by the beginning of their names."""
TIMM = "timm:"
"""What the name of a timm backbone begins with, such as `timm:mobilenetv3_small_100`."""

NORMALIZATIONS = {
    "imagenet": ("RGB", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "half": ("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe-bgr": ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
}
"""What trunk weights expect: order of the channels, then mean and standard deviation to apply to 0..255 values."""


def build_trunk(backbone: str) -> tuple[nn.Module, list[str]]:
    """The convolutional part of a classifier, without weights, under its library's names; and its stages' paths.

    Args:
        backbone: a torchvision classifier of one of `FAMILIES`, or `timm:NAME` for a timm model whose features are
            those of a stack of stages.

    Raises:
        RequestError: there is no such classifier, it is no stack of stages, or timm is not installed.
    """
    if backbone.startswith(TIMM):
        return _timm_stages(backbone.removeprefix(TIMM), pretrained=False)
    from torchvision import models

    if not backbone.startswith(FAMILIES) or backbone not in models.list_models(module=models):
        raise RequestError(
            f"backbone {backbone!r}: expected the name of a torchvision classifier of a family of"
            f" {', '.join(FAMILIES)}, or {TIMM}NAME for one of timm."
        )
    classifier = models.get_model(backbone, weights=None)
    if hasattr(classifier, "features"):
        names = [f"features.{name}" for name, _ in classifier.features.named_children()]
        return nn.Sequential(OrderedDict(features=classifier.features)), names
    stages = OrderedDict(classifier.named_children())
    names = [name for name in stages if name not in ("avgpool", "fc")]
    return nn.Sequential(OrderedDict((name, stages[name]) for name in names)), names


def hub_weights(backbone: str, normalization: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of a backbone, downloaded once by its own library into that library's cache.

    Raises:
        RequestError: there is no such backbone, or its weights expect another normalization.
        CheckpointError: the weights could not be downloaded.
    """
    trunk, _ = build_trunk(backbone)  # what is wrong is found before a download is tried
    _check_normalization(backbone, trunk, normalization)
    try:
        if backbone.startswith(TIMM):
            return _timm_stages(backbone.removeprefix(TIMM), pretrained=True)[0].state_dict()
        from torchvision import models

        return dict(models.get_model(backbone, weights="DEFAULT").state_dict())
    except RequestError:
        raise
    except Exception as error:  # urllib, requests and the hub's own client each have theirs
        raise CheckpointError(
            f"backbone {backbone!r}: its weights could not be downloaded ({type(error).__name__}: {_first(error)});"
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
    from torchvision import models

    transform = models.get_model_weights(backbone).DEFAULT.transforms()
    return tuple(transform.mean), tuple(transform.std)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _timm_stages(name: str, *, pretrained: bool) -> tuple[nn.Module, list[str]]:
    try:
        import timm
    except ImportError as error:
        raise RequestError(f"backbone 'timm:{name}': timm is not installed; pip install 'iqa-robust[timm]'.") from error
    if not timm.is_model(name):
        raise RequestError(f"backbone 'timm:{name}': timm {timm.__version__} has no model of that name.")
    try:
        trunk = timm.create_model(name, features_only=True, pretrained=pretrained)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise RequestError(f"backbone 'timm:{name}': timm gives no features of it ({_first(error)}).") from error
    kind = type(trunk).__name__
    if kind == "FeatureListNet":
        return trunk, [path for path, _ in trunk.named_children()]
    if kind in ("EfficientNetFeatures", "MobileNetV3Features"):
        stem = [path for path in ("conv_stem", "bn1", "act1") if hasattr(trunk, path)]
        return trunk, stem + [f"blocks.{path}" for path, _ in trunk.get_submodule("blocks").named_children()]
    raise RequestError(f"backbone 'timm:{name}': expected a stack of stages, got timm's {kind}.")
