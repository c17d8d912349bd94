"""What models with weights share: built at first use, frozen, their scores inside a declared range."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.checkpoints import Checkpoint, load_into
from iqa_robust.models.gates.explain import LayerExplanation, explain, has_gates


class LearnedModel(IQAModel):
    """A model whose network and `info` come from a weight file, read at first use and not in the constructor.

    First use is the first forward, a look at `info`, at the parameters or at the state, or a move to a device. The
    network is for inference: always in evaluation mode, its weights frozen, so that gradients flow to the images only.
    To train one, take the network itself (see `iqa_robust.training`).
    """

    @abstractmethod
    def _load(self) -> tuple[nn.Module, ModelInfo]:
        """Read the weight file: the network with its weights, and what is known of it."""

    def _ready(self) -> None:
        if "_loaded_info" not in self.__dict__:
            network, info = self._load()
            self.network = network.eval().requires_grad_(False)
            self._loaded_info = info

    @property
    def info(self) -> ModelInfo:  # type: ignore[override]
        """What is known of the model. Raises `CheckpointError` when the weights cannot be read."""
        self._ready()
        return self._loaded_info

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of images (N, 3, H, W); the reference is not looked at."""
        self._ready()
        return self.network(x)

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        """Explanations of a network with gates; None of any other. The reference is not looked at."""
        self._ready()
        return explain(self.network, x) if has_gates(self.network) else None

    def train(self, mode: bool = True) -> LearnedModel:
        """Stays in evaluation mode: batch statistics would make a score depend on its neighbors."""
        return super().train(False)

    # Whoever looks for parameters or moves them must find them, so these count as first use.

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LearnedModel:
        self._ready()
        return super()._apply(fn, recurse)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """As of any module, loaded first."""
        self._ready()
        return super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As of any module, loaded first."""
        self._ready()
        return super().state_dict(*args, **kwargs)


def build(network: Callable[..., nn.Module], checkpoint: Checkpoint) -> nn.Module:
    """The network that a checkpoint of our own describes (its config's `params`), with the weights in it.

    It is laid out without memory first, so a file with absurd sizes is refused before anything is allocated; but for
    trunks of some libraries, whose sizes are those of a known backbone.

    Raises:
        CheckpointError: the file has no usable configuration, or its tensors do not fit.
    """
    params = checkpoint.config.get("params")
    if not isinstance(params, dict):
        raise CheckpointError(
            f"{checkpoint.source}: expected a configuration with `params` in the header, found none;"
            " write checkpoints with `iqa-robust train`."
        )
    try:
        with torch.device("meta"):
            built = network(**params)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.source}: its `params` do not describe a network ({error}).") from error
    load_into(built, checkpoint)
    # tables that are in no state stay on the meta device; only a network built in memory has them
    if any(buffer.is_meta for buffer in built.buffers()):
        with torch.random.fork_rng(devices=[]):
            built = network(**params)
        load_into(built, checkpoint)
    return built


def info_of(checkpoint: Checkpoint, *, min_size: int) -> ModelInfo:
    """`ModelInfo` of a checkpoint of our own: what its config says, with the hash of the file.

    Raises:
        CheckpointError: an entry of the config is not of the expected kind.
    """
    config = checkpoint.config
    try:
        low, high = config["params"]["score_range"]
        datasets = config.get("training_datasets")
        return ModelInfo(
            higher_is_better=bool(config.get("higher_is_better", True)),
            score_range=(float(low), float(high)),
            min_size=min_size,
            weights_source=config.get("source"),
            weights_license=config.get("license"),
            weights_sha256=checkpoint.sha256,
            training_datasets=None if datasets is None else tuple(map(str, datasets)),
        )
    except (KeyError, TypeError, ValueError, ContractError) as error:
        raise CheckpointError(f"{checkpoint.source}: its configuration is broken ({error!r}).") from error


def into_range(z: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Map the real line onto (low, high), increasing, by z / sqrt(1 + z^2).

    Its tails fall like a power, not like an exponential: far outside the usual values the slope is small but does not
    underflow to zero, so the bound does not hide the gradient from an attack as a sigmoid's would. Computed as the
    sine of the arctangent, whose float32 slope is right to a percent up to |z| = 10,000; that of the quotient cancels.
    """
    return (low + high) / 2 + (high - low) / 2 * torch.sin(torch.atan(z))


def from_range(score: torch.Tensor, low: float, high: float, *, limit: float = 0.98) -> torch.Tensor:
    """The inverse of `into_range`; scores nearer to an end than `limit` (share of half the range) are moved there."""
    centered = ((score - (low + high) / 2) / ((high - low) / 2)).clamp(-limit, limit)
    return centered * torch.rsqrt(1 - centered * centered)
