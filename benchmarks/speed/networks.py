"""The networks that are attacked, and the images: shipped weights where there are some, random ones elsewhere.

What an attack costs does not depend on the weights. Random ones are seeded; batch norms and the head are set from the
images, so that activations and scores have the spread of a trained network's and no gradient vanishes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import iqa_robust as ir
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.learned import into_range
from iqa_robust.models.trunk_regressor import TrunkNetwork

RANGE = (0.0, 100.0)
PATCH = 16
"""Pixels along the side of a patch of the vision transformer."""
SPREAD = 0.1
"""Of a random network's scores before they are brought into the range: small, so that attacks do not meet its end."""
PHOTOS = 40
"""Different images, at most."""
CALIBRATION = 8
"""Images that set the statistics of random networks."""


def pictures(count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) on the 8-bit grid: embedded photographs, resized, repeated when they run out."""
    photos = [item.x for item in ir.datasets.create("photos", split="test", limit=min(count, PHOTOS), crop=192)]
    resized = F.interpolate(torch.stack(photos), size=side, mode="bilinear", antialias=True, align_corners=False)
    return to_8bit_grid(resized.clamp(0, 1)).repeat(-(-count // len(photos)), 1, 1, 1)[:count]


def network(name: str, side: int) -> IQAModel:
    """A model of `NETWORKS` for images of `side` pixels, frozen: gradients flow to the images only."""
    model = NETWORKS[name](side)
    model.eval().requires_grad_(False)
    return model


class ScoreTransformer(nn.Module):
    """ViT-S/16 (Dosovitskiy et al., ICLR 2021; the size of Touvron et al., ICML 2021) with one output."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, side: int) -> None:
        """`side` of the images, a multiple of `PATCH`."""
        from torchvision.models import VisionTransformer

        super().__init__()
        self.trunk = VisionTransformer(
            image_size=side,
            patch_size=PATCH,
            num_layers=12,
            num_heads=6,
            hidden_dim=384,
            mlp_dim=1536,
            num_classes=1,
        )
        nn.init.normal_(self.trunk.heads.head.weight)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (N,) before they are brought into the range."""
        return self.trunk((x - 0.5) * 2).squeeze(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,)."""
        return into_range((self.raw(x) - self.mean) / self.spread, *RANGE)


def _trunk(name: str) -> Callable[[int], IQAModel]:
    def make(side: int) -> IQAModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = TrunkNetwork(backbone=name, score_range=RANGE)
            nn.init.normal_(net.head.weight, std=SPREAD * net.head.in_features**-0.5)
        x = pictures(CALIBRATION, side)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the running statistics become those of one pass
        with torch.no_grad():
            net.train().features(x)
            features = net.eval().features(x)
            net.feature_mean.copy_(features.mean(dim=0))
            net.feature_scale.copy_(features.std(dim=0).clamp_min(1e-3))
        return ir.models.wrap(net, ModelInfo(score_range=RANGE))

    return make


def _transformer(side: int) -> IQAModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ScoreTransformer(side)
    with torch.no_grad():
        raw = net.eval().raw(pictures(CALIBRATION, side))
        net.mean.copy_(raw.mean())
        net.spread.copy_(raw.std() / SPREAD)
    return ir.models.wrap(net, ModelInfo(score_range=RANGE))


NETWORKS: dict[str, Callable[[int], IQAModel]] = {
    "compact": lambda side: ir.models.create("compact"),
    "squeezenet": lambda side: ir.models.create("trunk-regressor"),
    "resnet18": _trunk("resnet18"),
    "resnet50": _trunk("resnet50"),
    "vgg16": _trunk("vgg16"),
    "vit": _transformer,
}
"""From names to makers, which take the side of the images: the compact network and SqueezeNet 1.1 with the weights
that ship with the package, ResNet-18, ResNet-50, VGG-16 and ViT-S/16 with random ones."""
