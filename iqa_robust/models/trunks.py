"""Trunks: classifiers of torchvision and of timm (extra) without their heads, and their weights from a hub."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import RequestError

TIMM = "timm:"
"""What the name of a timm backbone begins with, such as `timm:mobilenetv3_small_100`."""
WHOLE = ""
"""The path, among those of stages, of what the network makes as a whole."""
HEADS = ("avgpool", "classifier", "dropout", "fc")
"""Children of torchvision's classifiers that come after the last features."""
ROWS = ("blocks", "layers", "trunk_output")
"""Children of torchvision's classifiers whose own children are stages."""
FULL_SIZES: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""How timm's transformers are asked to take images of any size, each kind in its own way; last, not at all."""
HALVED = ("googlenet", "inception_v3")
"""Torchvision classifiers of TensorFlow: with hub weights their forward turns ImageNet's normalization into `half`."""

NORMALIZATIONS = {
    "imagenet": ("RGB", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "half": ("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe-bgr": ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
}
"""What trunk weights expect: order of the channels, then mean and standard deviation to apply to 0..255 values."""


@dataclass(frozen=True)
class Trunk:
    """A classifier without its head, without weights, under its library's names."""

    network: nn.Module
    stages: list[str]
    """Paths of modules in the order an image passes them."""
    stacked: bool
    """Whether the stages alone, one after the other, are the network; otherwise `run` makes them do their part."""
    side: int
    """The size of the images that the weights were made for."""

    def run(self, x: torch.Tensor) -> Any:
        """What the network makes of images (N, 3, H, W); the last features, where it has them as a whole."""
        if self.stacked:
            for path in self.stages:
                x = self.network.get_submodule(path)(x)
            return x
        whole: Any = getattr(self.network, "forward_features", self.network)
        return whole(x)


def ways(backbone: str) -> list[Callable[[], Trunk]]:
    """What builds a trunk, the best way first: stages in a row, then the whole network. They may fail, each in its way.

    Args:
        backbone: a torchvision classifier, or `timm:NAME` for a timm model.

    Raises:
        RequestError: there is no such classifier, or timm is not installed.
    """
    if backbone.startswith(TIMM):
        name = backbone.removeprefix(TIMM)
        _check_timm(name)
        return [partial(_timm_stages, name), *(partial(_timm_whole, name, **sizes) for sizes in FULL_SIZES)]
    from torchvision import models

    if backbone not in models.list_models(module=models):
        raise RequestError(
            f"backbone {backbone!r}: expected the name of a torchvision classifier, or {TIMM}NAME for one of timm."
        )
    return [partial(_torchvision, backbone)]


def _torchvision(backbone: str) -> Trunk:
    from torchvision import models

    made_for = int(models.get_model_weights(backbone).DEFAULT.meta["min_size"][0])
    params: dict[str, Any] = {"image_size": made_for} if backbone.startswith("vit_") else {}
    if backbone in HALVED:
        params = {"aux_logits": False, "init_weights": True}
    classifier = models.get_model(backbone, weights=None, **params)
    if backbone.startswith("vit_"):
        classifier.heads = nn.Identity()
        blocks = [f"encoder.layers.{name}" for name, _ in classifier.encoder.layers.named_children()]
        return Trunk(classifier, [*blocks, "encoder.ln"], stacked=False, side=made_for)
    if backbone.startswith("swin_"):  # channels are last until `permute`
        classifier.head = nn.Identity()
        stages = [f"features.{name}" for name, _ in classifier.features.named_children()]
        return Trunk(classifier, [*stages, "permute"], stacked=False, side=made_for)
    if hasattr(classifier, "features"):
        names = [f"features.{name}" for name, _ in classifier.features.named_children()]
        return Trunk(nn.Sequential(OrderedDict(features=classifier.features)), names, stacked=True, side=made_for)
    parts = OrderedDict((name, part) for name, part in classifier.named_children() if name not in HEADS)
    names = [
        path
        for name, part in parts.items()
        for path in ([f"{name}.{row}" for row, _ in part.named_children()] if name in ROWS else [name])
    ]
    return Trunk(nn.Sequential(parts), names, stacked=True, side=made_for)


def _check_timm(name: str) -> None:
    try:
        import timm
    except ImportError as error:
        raise RequestError(f"backbone 'timm:{name}': timm is not installed; pip install 'iqa-robust[timm]'.") from error
    if not timm.is_model(name):
        raise RequestError(f"backbone 'timm:{name}': timm {timm.__version__} has no model of that name.")


def _timm_stages(name: str, *, pretrained: bool = False) -> Trunk:
    import timm

    trunk = timm.create_model(name, features_only=True, pretrained=pretrained)
    kind = type(trunk).__name__
    if kind == "FeatureListNet":
        stages = [path for path, _ in trunk.named_children()]
    elif kind in ("EfficientNetFeatures", "MobileNetV3Features"):
        stem = [path for path in ("conv_stem", "bn1", "act1") if hasattr(trunk, path)]
        stages = stem + [f"blocks.{path}" for path, _ in trunk.get_submodule("blocks").named_children()]
    else:
        raise RequestError(f"backbone 'timm:{name}': expected a stack of stages, got timm's {kind}.")
    return Trunk(trunk, stages, stacked=True, side=_side(trunk))


def _timm_whole(name: str, *, pretrained: bool = False, **sizes: Any) -> Trunk:
    import timm

    network = timm.create_model(name, num_classes=0, pretrained=pretrained, **sizes)
    known = {path for path, _ in network.named_modules()}
    stages = [info["module"] for info in getattr(network, "feature_info", []) if info["module"] in known - {WHOLE}]
    return Trunk(network, [*stages, WHOLE], stacked=False, side=_side(network))


def _side(network: Any) -> int:
    return int(network.pretrained_cfg["input_size"][-1])
