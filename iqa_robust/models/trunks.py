"""Trunks: the convolutional stages of classifiers of torchvision and of timm (extra), and their weights from a hub."""

from __future__ import annotations

from collections import OrderedDict

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


def hub_weights(backbone: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of a backbone, downloaded once by its own library into that library's cache.

    Raises:
        RequestError: there is no such backbone.
        CheckpointError: the weights could not be downloaded.
    """
    build_trunk(backbone)  # a wrong name is found before a download is tried
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
