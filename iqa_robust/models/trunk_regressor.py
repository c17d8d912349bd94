"""`trunk-regressor`: any classifier of torchvision, or of timm, with a small head on pooled features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.activations import replace_relus
from iqa_robust.models.base import ModelInfo
from iqa_robust.models.changes.pointwise import Pointwise
from iqa_robust.models.checkpoints import load, resolve
from iqa_robust.models.learned import LearnedModel, build, info_of, into_range
from iqa_robust.models.max_pool import replace_max_pools
from iqa_robust.models.pooling import mean_and_std
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_plan import Fit, Fitted, laid_out, plan_of, visit
from iqa_robust.models.trunks import NORMALIZATIONS

WEIGHTS = Path(__file__).with_name("weights")
PUBLISHED = {
    "biq2021": "trunk-biq2021.safetensors",
    "clive": "trunk-clive.safetensors",
    "clive-sort-mask": "trunk-clive-sort-mask.safetensors",
}
DEFAULT_BACKBONE = "squeezenet1_1"
DEFAULT_NORMALIZATION = "imagenet"
MIN_SIZE = 64
"""Trunks reduce the image by up to 32; smaller ones leave nothing to pool."""


class TrunkRegressor(LearnedModel):
    """No-reference model: ImageNet features, pooled at every resolution, and a linear head.

    The published sets are SqueezeNet-1.1 trunks (722,496 weights), fine-tuned by the recipes `trunk-clive` (scores
    0 to 100) and `trunk-biq2021` (scores 0 to 1) on the training splits of those datasets; see the model cards beside
    the weights. Higher is better. `clive-sort-mask` was trained robustly, by the recipe
    `wide-sort-mask-correlation-clive`, with a SortMask-style gate (our reconstruction; docs/robust_training.md).

    Args:
        backbone: name of a classifier, see `models.trunks`. It must be the backbone the weights
            were trained with.
        weights: `"clive"`, `"biq2021"`, `"clive-sort-mask"`, or the path of a checkpoint made by `iqa-robust train`.

    Raises:
        CheckpointError: at first use, when the weights cannot be read or belong to another network.
        RequestError: at first use, when the backbone is unknown or its features are no maps.
    """

    def __init__(self, *, backbone: str = DEFAULT_BACKBONE, weights: str = "clive") -> None:
        super().__init__()
        self.backbone = backbone
        self.weights = weights

    def _load(self) -> tuple[nn.Module, ModelInfo]:
        checkpoint = load(resolve(self.weights, PUBLISHED, WEIGHTS))
        stored = checkpoint.config.get("params", {}).get("backbone")
        if stored is not None and stored != self.backbone:
            raise CheckpointError(
                f"{checkpoint.source}: trained with the backbone {stored!r}, got {self.backbone!r};"
                f" pass backbone={stored!r}."
            )
        return build(TrunkNetwork, checkpoint), info_of(checkpoint, min_size=MIN_SIZE)


class TrunkNetwork(ScoreNetwork):
    """The network of `trunk-regressor`: images (N, 3, H, W) in [0, 1] to scores (N,) inside `score_range`.

    Means and standard deviations of the features are taken at the end of every resolution of the trunk, standardized
    with stored constants, and combined linearly; of a trunk with a single resolution, as vision transformers have, at
    the end of every quarter. Images of a size that the trunk does not take are resized in it, see `models.trunk_plan`.
    Names of the trunk's weights are its library's, after `trunk.`.

    Args:
        backbone: name of a torchvision classifier, or `timm:` and the name of a timm model; see `models.trunks`.
        normalization: `"imagenet"`, `"half"` or `"caffe-bgr"`, what the trunk's first weights were made for.
        dropout: share of the pooled statistics dropped in training.
        score_range: lowest and highest score.
        gate: `name` of a gate, its parameters, and `where` it sits: where the `"last"` features are pooled, or
            where `"every"` ones are.
        activation: `"relu"` (the backbone's own), or `"silu"`, `"softplus"` or `"elu"` wherever it has a ReLU.
        feature_denoising: whether a denoising block stands at the end of every resolution.

    Raises:
        RequestError: the backbone, the normalization, the gate or the activation is unknown or not supported, or the
            backbone has no layer of ReLU where another activation is asked for.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor

    def __init__(
        self,
        *,
        backbone: str = DEFAULT_BACKBONE,
        normalization: str = DEFAULT_NORMALIZATION,
        dropout: float = 0.0,
        score_range: Sequence[float] = (0.0, 100.0),
        gate: Mapping[str, Any] | None = None,
        activation: str = "relu",
        feature_denoising: bool = False,
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise RequestError(f"normalization: expected one of {', '.join(NORMALIZATIONS)}, got {normalization!r}.")
        self.normalize = _Normalize(normalization)
        self.score_range = (float(score_range[0]), float(score_range[1]))
        plan = plan_of(backbone)
        self._built, self._taps = laid_out(plan.build), plan.taps
        self.trunk = self._built.network
        replace_relus(self.trunk, activation)
        replace_max_pools(self.trunk)
        channels = [layout.channels for layout in self._taps.values()]
        pooled = 2 * sum(channels)
        self.register_buffer("feature_mean", torch.zeros(pooled))
        self.register_buffer("feature_scale", torch.ones(pooled))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(pooled, 1)
        self._before = [self.normalize] if plan.fit == Fit() else [self.normalize, Fitted(plan.fit)]
        self._add_tap_layers(channels, gate, feature_denoising)

    def _rows(self) -> dict[str, list[nn.Module]]:
        """The layers of the stages, by their paths; no stages of a trunk that runs only as a whole."""
        stages = self._built.stages if self._built.stacked else []
        return {path: _row(self.trunk.get_submodule(path)) for path in stages}

    def steps(self) -> list[nn.Module]:
        """Normalization, what brings images to a size the trunk takes, if it needs one, and stages, layer by layer.

        The rest of a network that runs only as a whole is no step: `features_from` runs it.
        """
        return [*self._before, *(step for row in self._rows().values() for step in row)]

    def taps(self) -> list[int]:
        """The last steps of the resolutions."""
        rows = self._rows()
        ends = list(accumulate(map(len, rows.values()), initial=len(self._before) - 1))[1:]
        return [end for path, end in zip(rows, ends, strict=True) if path in self._taps]

    def features_from(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """As of every score network; features of a trunk that runs as a whole are seen, and gated, while it runs."""
        if self._built.stacked:
            return super().features_from(number, h)
        for step in self.steps()[number + 1 :]:
            h = step(h)
        size, taps, statistics = h.shape[-2:], list(self._taps), list[torch.Tensor]()

        def seen(path: str, made: torch.Tensor) -> torch.Tensor:
            layout = self._taps[path]
            maps = self._at_tap(taps.index(path), layout.maps(made, *size))
            statistics.append(mean_and_std(maps))
            return layout.features(maps, made)

        visit(self._built, taps, h, seen)
        return torch.cat(statistics, dim=1)

    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled statistics (N, F), as `features` gives them."""
        standardized = (z - self.feature_mean) / self.feature_scale
        return into_range(self.head(self.dropout(standardized)).squeeze(1), *self.score_range)


def _row(stage: nn.Module) -> list[nn.Module]:
    return list(stage) if type(stage) is nn.Sequential else [stage]


class _Normalize(Pointwise):
    """Images in [0, 1] to what the trunk's first weights were made for, a key of `NORMALIZATIONS`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.order, self.mean, self.deviation = NORMALIZATIONS[name]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.flip(1) if self.order == "BGR" else x
        center, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.deviation))
        return torch.addcmul(-center / scale, channels, 255 / scale)
