"""How images pass a trunk: at which size, and where features are pooled. Found on the meta device, by shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.errors import RequestError
from iqa_robust.models.trunks import WHOLE, Trunk, ways

PREFIX = 8
"""Most tokens that stand before those of the image: of the class, of distillation, registers."""
QUARTERS = 4
"""Pooled stages of a network that has one resolution."""


@dataclass(frozen=True)
class Fit:
    """Sides of images that a trunk takes: multiples, of some length at least; or `only` one size, (side, side)."""

    multiple: int = 1
    least: int = 64
    only: int | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The size (H', W') to which an image (H, W) is brought: the next that the trunk takes."""
        if self.only is not None:
            return self.only, self.only
        up = [max(self.least, self.multiple * math.ceil(side / self.multiple)) for side in (height, width)]
        return up[0], up[1]


FITS = (Fit(), Fit(least=75), *(Fit(multiple=side, least=side * math.ceil(64 / side)) for side in (4, 8, 14, 16, 32)))
"""What is tried in turn, before the one size of the weights."""
PROBES = ((128, 160), (64, 64), (71, 107))
"""Images with which it is tried. The first is wider than high: so maps with channels last are told from others."""


class Fitted(nn.Module):
    """Images (N, 3, H, W) in a size that the trunk takes; those that have one stay. Bilinear, without aliasing."""

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        self.fit = fit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H', W') of (N, 3, H, W), differentiable."""
        size = self.fit.size(*x.shape[-2:])
        return x if size == x.shape[-2:] else F.interpolate(x, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Layout:
    """How a stage lays out its features: maps with the channels first or last, or a row of tokens."""

    axis: int
    """1 for (N, C, H, W), 3 for (N, H, W, C), 2 for tokens (N, L, C)."""
    channels: int
    stride: int = 0
    """Of tokens: pixels from one to the next."""
    prefix: int = 0
    """Tokens before those of the image."""

    @classmethod
    def of(cls, made: Any, height: int, width: int) -> Layout | None:
        """That of features of images (H, W); None for what is none of these."""
        shape = tuple(made.shape[1:]) if isinstance(made, torch.Tensor) and made.is_floating_point() else ()
        if len(shape) == 3:
            for axis, rows, columns in ((1, *shape[1:]), (3, *shape[:2])):
                # sides of the image's proportions, each rounded up or down
                if rows <= height and columns <= width and abs(rows * width - columns * height) <= height + width:
                    return cls(axis, shape[axis - 1])
        elif len(shape) == 2:
            grids = ((stride, math.ceil(height / stride) * math.ceil(width / stride)) for stride in range(1, 65))
            stride, tokens = next(((s, n) for s, n in grids if n <= shape[0]), (0, 0))
            if stride and shape[0] - tokens <= PREFIX:
                return cls(2, shape[1], stride, shape[0] - tokens)
        return None

    def maps(self, made: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Maps (N, C, H', W') of features of images (H, W)."""
        if self.axis == 2:
            grid = (math.ceil(height / self.stride), math.ceil(width / self.stride))
            return made[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        return made if self.axis == 1 else made.permute(0, 3, 1, 2)

    def features(self, maps: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """`made` with these maps in the place of its own."""
        if self.axis == 2:
            return torch.cat([made[:, : self.prefix], maps.flatten(2).transpose(1, 2)], dim=1)
        maps = maps.clone()  # what was pooled stays, even if the next stage edits what it gets
        return maps if self.axis == 1 else maps.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Plan:
    """How to build a trunk, and how images pass it."""

    build: Callable[..., Trunk]
    """Takes `pretrained`, of timm's."""
    fit: Fit
    taps: dict[str, Layout]
    """Where features are pooled: the paths of stages, in order, and how they lay them out."""


@lru_cache(maxsize=8)
def plan_of(backbone: str) -> Plan:
    """The first size of images, and for it the first way to build a trunk, with which its stages give maps.

    Raises:
        RequestError: there is no such backbone, or no size and no way.
    """
    twins = list[tuple[Callable[..., Trunk], Trunk]]()
    reason: Exception | None = None
    for build in ways(backbone):
        try:
            with torch.device("meta"):
                twin = laid_out(build)
        except Exception as error:  # a library's own complaint, of any kind
            reason = reason or error
            continue
        twin.network.eval()
        twins.append((build, twin))
    for fit in (*FITS, None):
        for build, twin in twins:
            fitting = fit or Fit(only=twin.side)
            try:
                first, *others = (_probe(twin, *fitting.size(*size)) for size in PROBES)
            except Exception as error:  # about the size, as a rule
                reason = error
                continue
            if all(list(other) == list(first) for other in others):
                return Plan(build, fitting, dict(_ends(first, quarters=not twin.stacked)))
    raise RequestError(
        f"backbone {backbone!r}: found no way to maps (N, C, H, W) of its features ({first_line(reason)})."
    ) from reason


def first_line(error: Exception | None) -> str:
    """What a library complains of, for a sentence of ours."""
    return (str(error).splitlines() or [""])[0][:200]


def laid_out(build: Callable[..., Trunk]) -> Trunk:
    """A trunk on the device in force; on the meta device also one whose library computes its sizes with tensors.

    Such a network is built in memory and moved there, without drawing from the random numbers of others.
    """
    if torch.get_default_device().type != "meta":
        return build()
    try:
        return build()
    except (NotImplementedError, RuntimeError):  # a value was asked for, and meta tensors have none
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            trunk = build()
        trunk.network.to("meta")
        return trunk


@torch.no_grad()
def _probe(trunk: Trunk, height: int, width: int) -> dict[tuple[str, Layout], torch.Size]:
    """The stages that give maps of an image (H, W), with their layouts, and the sizes of the maps.

    Raises:
        ValueError: the last stage does not give maps; or, of stages in a row, one does not with the channels first.
    """
    made: dict[str, list[Any]] = {}
    image = torch.zeros(1, 3, height, width, device="meta")
    visit(trunk, trunk.stages, image, lambda path, features: made.setdefault(path, []).append(features))
    layouts = {path: Layout.of(features[-1], height, width) for path, features in made.items() if len(features) == 1}
    found = {(p, layout): layout.maps(made[p][0], height, width).shape[2:] for p, layout in layouts.items() if layout}
    paths = [path for path, _ in found]
    if trunk.stacked and (paths != trunk.stages or any(layout.axis != 1 for _, layout in found)):
        raise ValueError("not all of its stages give them")
    if not {*trunk.stages[-2:]} & {*paths}:  # of these, the last may be the whole, which may be pooled
        raise ValueError("its last stage gives none")
    return found


def _ends(found: dict[tuple[str, Layout], torch.Size], *, quarters: bool) -> list[tuple[str, Layout]]:
    """The last stage of every resolution; of a network that has one, where asked for, that of every quarter.

    The first stages may be a convolution, a normalization and an activation in a row; they share a resolution, so they
    count as one.
    """
    stages, sizes = list(found), list(found.values())
    last = len(stages) - 1
    ends = [i for i in range(last + 1) if i == last or sizes[i] != sizes[i + 1]]
    if quarters and len(ends) == 1:
        ends = sorted({max(0, len(stages) * part // QUARTERS - 1) for part in range(1, QUARTERS + 1)})
    return [stages[i] for i in ends]


def visit(trunk: Trunk, paths: Sequence[str], x: torch.Tensor, seen: Callable[[str, Any], Any]) -> None:
    """Run a trunk: `seen(path, made)` gets what stages made, and gives what the next one gets instead, or None.

    Not for two threads at a time on one network: each would see what the other's stages make.
    """

    def tell(path: str, _: nn.Module, given: Any, made: Any) -> Any:
        return seen(path, made)

    stages = {path: trunk.network.get_submodule(path) for path in paths if path != WHOLE}
    hooks = [stage.register_forward_hook(partial(tell, path)) for path, stage in stages.items()]
    try:
        made = trunk.run(x)
    finally:
        for hook in hooks:
            hook.remove()
    if WHOLE in paths:
        seen(WHOLE, made)
