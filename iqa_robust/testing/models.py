"""The conformance suite of models."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import torch

from iqa_robust import models
from iqa_robust.defenses.base import PurifiedModel
from iqa_robust.models.base import IQAModel, ModelInfo, WrappedModel, WrappedModule
from iqa_robust.models.modes import evaluation_mode, placed
from iqa_robust.models.randomness import seeded
from iqa_robust.testing.pictures import degraded, off_grid, pictures
from iqa_robust.testing.pretended_gpu import some_gpu
from iqa_robust.testing.report import Report, expect, run
from iqa_robust.testing.subject import check_constructor, resolve
from iqa_robust.testing.traces import no_global_randomness, untouched

LEAST_SIDE = 96
"""Side of the pictures in pixels where the model accepts it."""
ROUNDING = 1e-4
"""Part of the scale of the scores that float32 sums of another order may explain."""
MADE_OF_OTHERS = (WrappedModule, WrappedModel, PurifiedModel)
"""Models whose constructor takes a model or module: their configuration is that of their parts."""


def check(model: IQAModel | str) -> Report:
    """Ask everything of a model; see `iqa_robust.testing.check_model`."""
    title, instance = resolve(model, models.registry, IQAModel)  # type: ignore[type-abstract]
    suite = _Suite(instance)
    questions = [
        ("info", suite.info),
        ("scores", suite.scores),
        *([] if isinstance(instance, MADE_OF_OTHERS) else [("constructor", lambda: check_constructor(instance))]),
        ("sizes", suite.sizes),
        ("batch", suite.batch),
        ("repeatable", suite.repeatable),
        ("gradient", suite.gradient),
        ("gradient-per-image", suite.gradient_per_image),
        ("score-range", suite.score_range),
        ("direction", suite.direction),
        ("flat-images", suite.flat_images),
        ("input-unchanged", suite.input_unchanged),
        ("state-unchanged", suite.state_unchanged),
        ("global-randomness", suite.global_randomness),
        ("gpu", suite.gpu),
        ("cost", suite.cost),
    ]
    with evaluation_mode(instance):
        return run(title, questions, essential=2)


class _Suite:
    def __init__(self, model: IQAModel) -> None:
        self.model = model

    @property
    def side(self) -> int:
        return max(LEAST_SIDE, self.model.info.min_size)

    def images(self, n: int, height: int | None = None, width: int | None = None) -> torch.Tensor:
        """Pictures; for a full-reference model damaged ones, whose originals are the references."""
        height, width = height or self.side, width or self.side
        originals = pictures(n, height, width)
        return degraded(originals) if self.model.info.full_reference else originals

    def references(self, x: torch.Tensor) -> torch.Tensor | None:
        return pictures(len(x), *x.shape[-2:]) if self.model.info.full_reference else None

    def value(self, x: torch.Tensor, seeds: Sequence[int] | None = None) -> torch.Tensor:
        with torch.no_grad(), seeded(range(len(x)) if seeds is None else seeds):
            return self.model(x, self.references(x))

    def scale(self) -> float:
        """What a difference of scores is compared with: the range, or the largest score where it is unknown."""
        if self.model.info.score_range is not None:
            return self.model.info.score_range[1] - self.model.info.score_range[0]
        return max(1.0, self.value(self.images(3)).abs().max().item())

    def info(self) -> str:
        info = self.model.info
        expect(isinstance(info, ModelInfo), f"expected info to be a ModelInfo, got {type(info).__name__}.")
        for name in ("full_reference", "higher_is_better", "deterministic"):
            expect(
                isinstance(getattr(info, name), bool),
                f"expected info.{name} to be True or False, got {getattr(info, name)!r}.",
            )
        expect(
            type(info.min_size) is int and info.min_size >= 1,
            f"expected info.min_size to be a whole number >= 1, got {info.min_size!r}.",
        )
        expect(
            info.score_range is None or all(math.isfinite(end) for end in info.score_range),
            f"expected finite ends of info.score_range, or None where it is unknown, got {info.score_range!r}.",
        )
        known = {
            field.name: getattr(info, field.name)
            for field in dataclasses.fields(info)
            if getattr(info, field.name) is not None
        }
        return ", ".join(f"{name}={value}" for name, value in known.items())

    def scores(self) -> str:
        for n in (1, 3):
            scores = self.value(self.images(n))
            expect(
                isinstance(scores, torch.Tensor) and scores.shape == (n,),
                f"expected scores of shape ({n},), got {tuple(getattr(scores, 'shape', ()))}.",
            )
            expect(scores.is_floating_point(), f"expected floating-point scores, got {scores.dtype}.")
            expect(bool(scores.isfinite().all()), f"expected finite scores, got {scores.tolist()}.")
        return ", ".join(f"{score:.4g}" for score in scores.tolist())

    def sizes(self) -> str:
        least, side = self.model.info.min_size, self.side
        tried = [(least, least), (side, side + 37), (side + 65, side), (side + 1, side + 3)]
        for height, width in tried:
            scores = self.value(self.images(2, height, width))
            expect(
                scores.shape == (2,) and bool(scores.isfinite().all()),
                f"expected two finite scores for images of {height} x {width}, got {scores.tolist()};"
                " state min_size where small images are not accepted.",
            )
        return ", ".join(f"{height} x {width}" for height, width in tried)

    def batch(self) -> str:
        x = self.images(3)
        together = self.value(x, [1, 2, 3])
        alone = torch.cat([self._alone(x, i) for i in range(3)])
        apart = (together - alone).abs().max().item()
        limit = ROUNDING * self.scale()
        expect(
            apart <= limit,
            f"expected a batch to give what its images give alone, up to {limit:.2g}; scores differ by {apart:.3g}.",
        )
        return f"scores differ by at most {apart:.2g}, {limit:.2g} allowed"

    def _alone(self, x: torch.Tensor, i: int) -> torch.Tensor:
        ref = self.references(x)
        with torch.no_grad(), seeded([i + 1]):
            return self.model(x[i : i + 1], None if ref is None else ref[i : i + 1])

    def repeatable(self) -> str:
        x = self.images(2)
        with torch.no_grad():
            unseeded = [self.model(x, self.references(x)) for _ in range(4)]
        varies = any(not torch.equal(scores, unseeded[0]) for scores in unseeded)
        expect(
            torch.equal(self.value(x, [1, 2]), self.value(x, [1, 2])),
            "expected the same scores under the same seeds, got different ones; draw from"
            " `iqa_robust.models.randomness.draws` only.",
        )
        if self.model.info.deterministic:
            expect(
                not varies,
                "declared deterministic, but repeated calls give different scores; set deterministic=False.",
            )
            return "deterministic, as declared"
        expect(varies, "declared randomized, but four calls give the same scores; set deterministic=True.")
        return f"randomized, as declared: scores spread by {torch.stack(unseeded).std(dim=0).mean().item():.2g}"

    def _slope(self, x: torch.Tensor, chosen: slice) -> torch.Tensor:
        leaf = x.clone().requires_grad_(True)
        with seeded(range(len(x))):
            scores = self.model(leaf, self.references(x))
        expect(scores.requires_grad, "expected a gradient from the scores to the images; the graph is cut.")
        return torch.autograd.grad(scores[chosen].sum(), leaf, materialize_grads=True)[0]

    def gradient(self) -> str:
        slope = self._slope(off_grid(self.images(2)), slice(None))
        expect(bool(slope.isfinite().all()), "expected a finite gradient, got NaN or infinity.")
        expect(
            bool((slope != 0).flatten(1).any(dim=1).all()),
            "expected a gradient at the images, got zero everywhere: every white-box attack would fail for free.",
        )
        return f"finite, nonzero at {100 * (slope != 0).float().mean().item():.0f} % of the values"

    def gradient_per_image(self) -> str:
        slope = self._slope(off_grid(self.images(2)), slice(0, 1))
        expect(
            not bool(slope[1].any()),
            "expected the score of an image to depend on that image alone; it has a gradient at its neighbor.",
        )
        return "a score depends on its own image alone"

    def score_range(self) -> str:
        if self.model.info.score_range is None:
            return "unknown; a track must freeze one before it can compare shifts on a scale"
        low, high = self.model.info.score_range
        x = self.images(3)
        scores = torch.cat([self.value(x), self.value(degraded(x))])
        expect(
            bool(((scores >= low) & (scores <= high)).all()),
            f"expected scores in the declared range [{low:g}, {high:g}], got {scores.min().item():.4g} to"
            f" {scores.max().item():.4g}; declare None where the range is unknown.",
        )
        return f"{scores.min().item():.4g} to {scores.max().item():.4g} in [{low:g}, {high:g}]"

    def direction(self) -> str:
        """Only said, not judged: a model may rightly be blind to what is done here."""
        x = pictures(4, self.side, self.side)
        ref = x if self.model.info.full_reference else None
        slightly = torch.round((x + 2 / 255).clamp(0, 1) * 255) / 255
        with torch.no_grad(), seeded(range(4)):
            good = self.model(slightly if ref is not None else x, ref)
        with torch.no_grad(), seeded(range(4)):
            bad = self.model(degraded(x), ref)
        fall = (good - bad) if self.model.info.higher_is_better else (bad - good)
        said = "higher" if self.model.info.higher_is_better else "lower"
        return (
            f"declares that {said} is better; {int((fall > 0).sum())} of 4 pictures lose by severe blur and noise,"
            f" {fall.mean().item():.3g} on average"
        )

    def flat_images(self) -> str:
        """Only said: a model may have nothing to say about an image without content."""
        x = torch.stack([torch.full((3, self.side, self.side), level) for level in (0.0, 0.5, 1.0)])
        scores = self.value(x)
        finite = "finite" if bool(scores.isfinite().all()) else "NOT finite"
        return f"{finite} scores for black, gray and white: {', '.join(f'{s:.4g}' for s in scores.tolist())}"

    def input_unchanged(self) -> str:
        x = self.images(2)
        ref = self.references(x)
        given = {"images": x} if ref is None else {"images": x, "references": ref}
        kept = {what: tensor.clone() for what, tensor in given.items()}
        with torch.no_grad(), seeded([1, 2]):
            self.model(x, ref)
        for what, tensor in given.items():
            expect(
                torch.equal(tensor, kept[what]),
                f"expected the {what} to be left as they were; work on a copy.",
            )
        return "images are left as they were"

    def state_unchanged(self) -> str:
        x = self.images(2)
        before = self.value(x)
        with untouched(self.model):
            self.value(self.images(3, self.side + 5, self.side))
            self._slope(x, slice(None))
        apart = (self.value(x) - before).abs().max().item()
        expect(apart == 0, f"expected the same scores after other images were seen, they differ by {apart:.3g}.")
        return "a call leaves nothing behind for the next one"

    def global_randomness(self) -> str:
        x = self.images(2)
        with no_global_randomness(), torch.no_grad():
            self.model(x, self.references(x))
        return "not used"

    def gpu(self) -> str:
        """All that the model holds has to come along, and what it makes to be made there."""
        x = off_grid(self.images(2))
        ref = self.references(x)
        with some_gpu() as (device, where), placed(self.model, device):
            leaf = x.to(device).requires_grad_(True)
            with seeded([1, 2]):
                scores = self.model(leaf, None if ref is None else ref.to(device))
            expect(scores.device == device, f"expected scores on {device}, got {scores.device}.")
            if scores.requires_grad:
                slope = torch.autograd.grad(scores.sum(), leaf)[0]
                expect(slope.device == device, f"expected a gradient on {device}, got one on {slope.device}.")
        return f"scores and slopes {where}"

    def cost(self) -> str:
        side = max(256, self.side)
        x = self.images(1, side, side)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self.value(x)
            times.append(time.perf_counter() - start)
        return f"{1000 * min(times):.0f} ms for an image of {side} x {side}"
