"""The contract every IQA model keeps: images (and references) in, one score per image out."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.images import check_images, check_pair
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.gates.explain import LayerExplanation, explain, has_gates
from iqa_robust.models.randomness import derive_seed, seeded

SCORE_DRAWS = 5
"""Seeds over which the score of a randomized model is averaged; each is recorded."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of a model. `None` means unknown, never "no"."""

    full_reference: bool = False
    """Whether `forward` needs the reference image."""
    higher_is_better: bool = True
    score_range: tuple[float, float] | None = None
    """Lowest and highest score in native units, numerically ordered."""
    deterministic: bool = True
    """False when two calls on one image may differ."""
    min_size: int = 1
    """Smallest height and width the model accepts, in pixels."""
    weights_source: str | None = None
    weights_license: str | None = None
    weights_sha256: str | None = None
    training_datasets: tuple[str, ...] | None = None
    """Names such as `"koniq10k"` (all of it) or `"koniq10k:train"` (that split)."""

    def __post_init__(self) -> None:
        if self.score_range is not None:
            low, high = self.score_range
            if not low < high:
                raise ContractError(f"score_range: expected (low, high) with low < high, got ({low}, {high}).")


@dataclass(frozen=True)
class Certificate:
    """A promise for each image of a batch: no image within the asked L2 distance of it has a score outside an interval.

    The interval is infinite where nothing is promised. For a randomized model, "score" is what `score` returns for
    draws that are independent of the certificate's, and the promise may fail with a stated probability per image.
    """

    low: torch.Tensor
    """(N,) native units."""
    high: torch.Tensor
    """(N,) likewise."""
    radius: torch.Tensor
    """(N,) the largest L2 distance, full scale of one value = 1, at which the interval is finite; 0: none."""


class IQAModel(nn.Module, ABC):
    """An IQA model: `forward(x, ref=None) -> (N,)` in native units, gradients flow to `x`.

    `x` and `ref` are float32 (N, 3, H, W) in [0, 1]. A batch of N gives what N batches of one give, up to float32
    rounding.
    """

    info: ModelInfo
    copies_images: bool = False
    """Whether `forward` works on a copy of the images, so that a caller who needs them unchanged makes none."""

    @abstractmethod
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of images (N, 3, H, W)."""

    def score_changed(self, x: torch.Tensor, ref: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        """Scores (N,), as `forward` gives them up to rounding, of images that a search announced to `memory`.

        Only a model made for searches has a faster way to them.
        """
        scores: torch.Tensor = self(x, ref)
        return scores

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate | None:
        """What is proven of the scores of all images within `l2` (N,) of `x` (N, 3, H, W), under the same references.

        None, unless a certified defense made the model. Distances are Euclidean norms over all 3 H W values.
        """
        return None

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        """What the scores of images (N, 3, H, W) rest on: one explanation per gate, in the order the images pass them.

        None, unless the model is a network with gates.
        """
        return None


class WrappedModule(IQAModel):
    """A model made of any module whose forward maps (N, 3, H, W) in [0, 1] to N scores."""

    def __init__(self, module: nn.Module, info: ModelInfo) -> None:
        """`module` is called with `(x)` or, when `info.full_reference`, with `(x, ref)`."""
        super().__init__()
        self.module = module
        self.info = info
        self.training = module.training

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,). Raises `ContractError` when the module returns anything but N numbers."""
        # Copies, because a module may edit its input in place; gradients flow through them.
        copies = [x.clone(), None if ref is None else ref.clone()] if self.info.full_reference else [x.clone()]
        scores = self.module(*copies)
        if not isinstance(scores, torch.Tensor) or scores.numel() != x.shape[0]:
            got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ContractError(f"wrapped model: expected one score per image, shape ({x.shape[0]},), got {got}.")
        return scores.reshape(x.shape[0])

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        """Explanations of a no-reference module with gates; a model explains itself; None of any other."""
        if isinstance(self.module, IQAModel):
            return self.module.explain(x, ref)
        return explain(self.module, x) if has_gates(self.module) and not self.info.full_reference else None


def wrap(module: nn.Module, info: ModelInfo | None = None) -> IQAModel:
    """Make a model of any `torch.nn.Module` (or callable) from (N, 3, H, W) in [0, 1] to N scores.

    Args:
        module: called with the images only, or with images and references when `info.full_reference`.
        info: what is known of it; the default assumes a no-reference model where higher is better.

    Raises:
        ContractError: neither module nor callable, or `info` is something else.
    """
    if not isinstance(info, ModelInfo | None):
        raise ContractError(f"models.wrap: expected info to be a ModelInfo or None, got {type(info).__name__}.")
    if isinstance(module, IQAModel) and info is None:
        return module
    if not isinstance(module, nn.Module):
        if not callable(module):
            raise ContractError(f"models.wrap: expected a module or a callable, got {type(module).__name__}.")
        module = _Callable(module)
    return WrappedModule(module, info or ModelInfo())


class _Callable(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return self.function(*images)  # type: ignore[operator]


def with_score_range(model: IQAModel, score_range: tuple[float, float]) -> IQAModel:
    """The same model with another declared score range (a track freezes it); the given one is not edited."""
    return WrappedModel(model, dataclasses.replace(model.info, score_range=score_range))


class WrappedModel(IQAModel):
    """A model that passes its input on, under another `info`."""

    def __init__(self, model: IQAModel, info: ModelInfo) -> None:
        """`info` replaces `model.info`."""
        super().__init__()
        self.model = model
        self.info = info
        self.training = model.training
        self.copies_images = type(self) is WrappedModel and model.copies_images

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of the inner model."""
        return self.model(x, ref)

    def score_changed(self, x: torch.Tensor, ref: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        """Scores (N,) of the inner model, unless a subclass does more than pass its input on."""
        if type(self) is not WrappedModel:
            return super().score_changed(x, ref, memory)
        return self.model.score_changed(x, ref, memory)

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate | None:
        """What the inner model promises."""
        return self.model.certify(x, ref, l2)

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        """What the inner model says of itself."""
        return self.model.explain(x, ref)


class Swapped(WrappedModel):
    """A full-reference model with its two inputs exchanged: the images are the references."""

    def __init__(self, model: IQAModel) -> None:
        """Raise `ContractError` for a model without references."""
        if not model.info.full_reference:
            raise ContractError("perturbing the reference needs a full-reference model; this one takes no reference.")
        super().__init__(model, model.info)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of the images `ref` against the references `x`."""
        if ref is None:
            raise ContractError("the model is full-reference: pass the images as `ref`.")
        return self.model(ref, x)

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate | None:
        """None: certificates speak of changed images under fixed references."""
        return None

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        """None: explanations speak of images, and `x` are the references."""
        return None


def check_model(model: object) -> None:
    """Raise `ContractError` for anything but an `IQAModel`."""
    if not isinstance(model, IQAModel):
        raise ContractError(
            f"model: expected an IQAModel, got {type(model).__name__}; make one with `models.create(name)` or"
            " `models.wrap(module)`."
        )


def check_inputs(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Raise `ContractError` unless the images, and the references where the model needs them, fit the model."""
    check_model(model)
    check_images(x)
    if model.info.full_reference:
        if ref is None:
            raise ContractError("the model is full-reference: pass the reference images as `ref`.")
        check_pair(x, ref)
    if min(x.shape[-2:]) < model.info.min_size:
        raise ContractError(
            f"images: the model needs at least {model.info.min_size} pixels a side, got {x.shape[-2]} x {x.shape[-1]}."
        )


@torch.no_grad()
def score(
    model: IQAModel,
    x: torch.Tensor,
    ref: torch.Tensor | None = None,
    *,
    seeds: Sequence[int],
    draws: int = SCORE_DRAWS,
) -> torch.Tensor:
    """Final scores (N,), float32, without gradients.

    A randomized model is scored under `draws` draws per image, derived from `seeds` (one per image), and averaged; a
    deterministic one is scored once. The model works on copies, so one that edits its input in place does no harm.
    """

    def once() -> torch.Tensor:
        return model(x.clone(), None if ref is None else ref.clone()).float()

    if model.info.deterministic:
        return once()
    total = torch.zeros(x.shape[0], device=x.device)
    for draw in range(draws):
        with seeded([derive_seed(seed, "score", draw) for seed in seeds]):
            total += once()
    return total / draws
