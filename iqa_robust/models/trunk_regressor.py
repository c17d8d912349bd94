"""`trunk-regressor`: the convolutional part of any torchvision classifier with a small head on pooled features."""

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
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunks import NORMALIZATIONS, build_trunk

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
        backbone: name of a stack of convolutional stages, see `models.trunks`. It must be the backbone the weights
            were trained with.
        weights: `"clive"`, `"biq2021"`, `"clive-sort-mask"`, or the path of a checkpoint made by `iqa-robust train`.

    Raises:
        CheckpointError: at first use, when the weights cannot be read or belong to another network.
        RequestError: at first use, when the backbone is unknown or of another family, such as a vision transformer.
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
    with stored constants, and combined linearly. Names of the trunk's weights are torchvision's, after `trunk.`.

    Args:
        backbone: name of a torchvision classifier, or `timm:` and the name of a timm model; see `models.trunks`.
        normalization: `"imagenet"`, `"half"` or `"caffe-bgr"`, what the trunk's first weights were made for.
        dropout: share of the pooled statistics dropped in training.
        score_range: lowest and highest score.
        gate: `name` of a gate, its parameters, and `where` it sits: at the end of the `"last"` resolution or of
            `"every"` one.
        activation: `"relu"` (the backbone's own), or `"silu"`, `"softplus"` or `"elu"` wherever it has a ReLU.
        feature_denoising: whether a denoising block stands at the end of every resolution.

    Raises:
        RequestError: the backbone, the normalization, the gate or the activation is unknown or not supported.
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
        self.trunk, self._stage_paths = build_trunk(backbone)
        replace_relus(self.trunk, activation)
        replace_max_pools(self.trunk)
        self._taps = _taps(self._stages(), backbone)
        pooled = 2 * sum(self._taps.values())
        self.register_buffer("feature_mean", torch.zeros(pooled))
        self.register_buffer("feature_scale", torch.ones(pooled))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(pooled, 1)
        self._add_tap_layers(list(self._taps.values()), gate, feature_denoising)

    def _stages(self) -> list[nn.Module]:
        return [self.trunk.get_submodule(path) for path in self._stage_paths]

    def steps(self) -> list[nn.Module]:
        """Normalization and stages; those that are rows of layers, layer by layer."""
        return [self.normalize, *(step for stage in self._stages() for step in _row(stage))]

    def taps(self) -> list[int]:
        """The last steps of the resolutions."""
        ends = accumulate((len(_row(stage)) for stage in self._stages()), initial=0)
        last = list(ends)[1:]
        return [last[number] for number in self._taps]

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


@torch.no_grad()
def _taps(stages: list[nn.Module], backbone: str) -> dict[int, int]:
    """Where to pool: the number of the last stage of every resolution, and its channels.

    Found by a forward pass on the meta device: shapes only, no arithmetic. The first stages may be a convolution, a
    normalization and an activation in a row; they share a resolution, so they count as one. The image is wider than
    high, which tells maps with channels last from maps with channels first.

    Raises:
        RequestError: the stages take images of one size only, or give something else than maps (N, C, H, W).
    """
    device = next(parameter.device for stage in stages for parameter in stage.parameters())
    x = torch.zeros(1, 3, 128, 160, device=device)
    shapes = []
    for stage in stages:
        mode = stage.training
        try:
            x = stage.eval()(x)
        except Exception as error:  # a library's own complaint about the size
            raise RequestError(f"backbone {backbone!r}: its stages take no image of 128 x 160 pixels.") from error
        finally:
            stage.train(mode)
        shape = tuple(x.shape[1:]) if isinstance(x, torch.Tensor) else ()
        if len(shape) != 3 or not shape[1] <= shape[2] <= 1.5 * shape[1]:
            raise RequestError(f"backbone {backbone!r}: expected stages that give maps (C, H, W), got {shape}.")
        shapes.append(shape)
    taps = [i for i in range(len(shapes)) if i + 1 == len(shapes) or shapes[i][1:] != shapes[i + 1][1:]]
    return {i: shapes[i][0] for i in taps}
