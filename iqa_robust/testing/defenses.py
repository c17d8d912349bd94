"""The conformance suite of defenses."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from iqa_robust import defenses
from iqa_robust.defenses.base import Defense, DifferentiablePurifier, Purifier
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.modes import evaluation_mode
from iqa_robust.models.randomness import seeded
from iqa_robust.testing.pictures import off_grid, pictures
from iqa_robust.testing.pretended_gpu import some_gpu
from iqa_robust.testing.report import Report, expect, run
from iqa_robust.testing.subject import check_constructor, parameters, resolve
from iqa_robust.testing.toy import ToyNetwork, ToyReference
from iqa_robust.testing.traces import no_global_randomness, untouched

SIDE = 72
"""Side of the pictures in pixels: not a multiple of 16, and large enough for wide filters."""
SIZES = ((72, 72), (73, 91), (96, 75))
SLOPE_STEPS = (2e-4, 2e-5)
"""Steps of the finite differences per value. The first is large against float32 rounding, the second small against
the distance of neighboring values, where a median or a threshold has kinks; one of them must agree."""
SLOPE_TOLERANCE = 0.05
"""Part of the slope that finite differences may miss. A wrong gradient misses most of it, at any step."""
COST_CALLS, COST_SECONDS = 3, 1.0
"""Calls that are timed, and the time after which no other is begun; the fastest counts."""
ROUNDING = 1e-4
"""Difference of two scores on a scale of 100 that the summation order of float32 may explain."""


def check(defense: Defense | str) -> Report:
    """Ask everything of a defense; see `iqa_robust.testing.check_defense`."""
    title, in_full = resolve(defense, defenses.registry, Defense)  # type: ignore[type-abstract]
    quick = defenses.get(defense).check_params if isinstance(defense, str) else {}
    instance = defenses.create(defense, **quick) if isinstance(defense, str) and quick else in_full
    suite = _Suite(instance, in_full)
    questions = [
        ("wrap", suite.wrap),
        ("scores", suite.scores),
        ("constructor", lambda: check_constructor(instance)),
        *([("purify", suite.purify)] if isinstance(instance, Purifier) else []),
        ("batch", suite.batch),
        ("repeatable", suite.repeatable),
        ("gradient", suite.gradient),
        ("slope", suite.slope if isinstance(instance, DifferentiablePurifier) else suite.surrogate_leads_up),
        ("references", suite.references),
        ("input-unchanged", suite.input_unchanged),
        ("model-unchanged", suite.model_unchanged),
        ("global-randomness", suite.global_randomness),
        ("no-memory", suite.no_memory),
        ("gpu", suite.gpu),
        ("cost", suite.cost),
    ]
    return run(title, questions, essential=2)


class _Suite:
    def __init__(self, defense: Defense, in_full: Defense) -> None:
        """`defense` is asked everything; `in_full`, which may do more of the same work, only for its cost."""
        self.defense = defense
        self.in_full = in_full
        self.random = not type(defense).deterministic
        self.model = ToyNetwork().eval()
        self._wrapped: IQAModel | None = None

    @property
    def wrapped(self) -> IQAModel:
        if self._wrapped is None:
            self._wrapped = self.defense.wrap(self.model).eval()
        return self._wrapped

    def value(self, x: torch.Tensor, seeds: Sequence[int] | None = None) -> torch.Tensor:
        """Defended scores under one seed per image."""
        with torch.no_grad(), seeded(range(len(x)) if seeds is None else seeds):
            return self.wrapped(x)

    def slope_at(self, x: torch.Tensor, wrapped: IQAModel | None = None) -> torch.Tensor:
        leaf = x.clone().requires_grad_(True)
        with seeded(range(len(x))):
            scores = (wrapped or self.wrapped)(leaf)
        expect(
            scores.requires_grad,
            "expected a gradient from the scores to the images; the graph is cut, so the attack would be off.",
        )
        return torch.autograd.grad(scores.sum(), leaf, materialize_grads=True)[0]

    def wrap(self) -> str:
        wrapped = self.wrapped
        expect(isinstance(wrapped, IQAModel), f"expected wrap to return a model, got {type(wrapped).__name__}.")
        expect(wrapped is not self.model, "expected wrap to return another model, got the one it was given.")
        kept, given = wrapped.info, self.model.info
        for name in ("full_reference", "higher_is_better"):
            expect(
                getattr(kept, name) == getattr(given, name),
                f"expected the defended model to keep info.{name}={getattr(given, name)}, got {getattr(kept, name)}.",
            )
        expect(
            kept.deterministic == (not self.random),
            f"expected info.deterministic={not self.random} as the defense declares, got {kept.deterministic}.",
        )
        return type(wrapped).__name__

    def scores(self) -> str:
        least = self.wrapped.info.min_size
        sizes = [(max(h, least), max(w, least)) for h, w in SIZES]
        for height, width in sizes:
            for n in (1, 3):
                scores = self.value(pictures(n, height, width))
                where = f"for {n} images of {height} x {width}"
                expect(
                    isinstance(scores, torch.Tensor) and scores.shape == (n,),
                    f"expected scores of shape ({n},) {where}, got {tuple(getattr(scores, 'shape', ()))}.",
                )
                expect(scores.is_floating_point(), f"expected floating-point scores {where}, got {scores.dtype}.")
                expect(bool(scores.isfinite().all()), f"expected finite scores {where}, got NaN or infinity.")
        return ", ".join(f"{h} x {w}" for h, w in sizes)

    def purify(self) -> str:
        purifier = self.defense
        assert isinstance(purifier, Purifier)
        lowest, highest = 1.0, 0.0
        for height, width in SIZES:
            x = pictures(2, height, width)
            x[:, :, : height // 3, : width // 3], x[:, :, height // 3 : height // 2, : width // 3] = 0.0, 1.0
            with torch.no_grad(), seeded([1, 2]):
                y = purifier.purify(x)
            expect(y.dtype == torch.float32, f"purify: expected float32, got {y.dtype}.")
            expect(
                y.ndim == 4 and y.shape[:2] == x.shape[:2] and 0 not in y.shape,
                f"purify: expected (2, 3, H', W') of {tuple(x.shape)}, got {tuple(y.shape)}.",
            )
            expect(
                y.shape == x.shape or not purifier.keeps_geometry,
                f"purify: expected the size {height} x {width} to be kept, got {tuple(y.shape[-2:])};"
                " set keeps_geometry = False.",
            )
            expect(bool(y.isfinite().all()), "purify: expected finite values, got NaN or infinity.")
            lowest, highest = min(lowest, y.min().item()), max(highest, y.max().item())
        expect(
            lowest >= 0 and highest <= 1,
            f"purify: expected values in [0, 1], got [{lowest:.6g}, {highest:.6g}].",
        )
        return f"values in [{lowest:.3g}, {highest:.3g}]"

    def batch(self) -> str:
        x = pictures(3, *SIZES[1])
        together = self.value(x, [11, 12, 13])
        alone = torch.cat([self.value(x[i : i + 1], [11 + i]) for i in range(3)])
        backwards = self.value(x.flip(0), [13, 12, 11]).flip(0)
        apart = max((together - alone).abs().max().item(), (together - backwards).abs().max().item())
        expect(
            apart <= ROUNDING,
            f"expected a batch to give what its images give alone, in any order; scores differ by {apart:.3g} of"
            " 100. Compute nothing over the batch, and draw per image.",
        )
        return f"scores differ by at most {apart:.1g} of 100"

    def repeatable(self) -> str:
        x = pictures(2, SIDE, SIDE)
        with torch.no_grad():
            unseeded = [self.wrapped(x) for _ in range(4)]
        varies = any(not torch.equal(scores, unseeded[0]) for scores in unseeded)
        same = torch.equal(self.value(x, [1, 2]), self.value(x, [1, 2]))
        expect(
            same,
            "expected the same scores under the same seeds, got different ones; draw from"
            " `iqa_robust.models.randomness.draws` only.",
        )
        if not self.random:
            expect(
                not varies,
                "declared deterministic, but repeated calls give different scores; set deterministic = False.",
            )
            return "deterministic, as declared"
        values = torch.stack([self.value(x, [100 + k, 200 + k]) for k in range(8)])
        expect(
            varies and bool((values != values[0]).any()),
            "declared randomized, but eight seeds give the same scores; set deterministic = True.",
        )
        return f"randomized, as declared: scores spread by {values.std(dim=0).mean().item():.2g} of 100"

    def gradient(self) -> str:
        slope = self.slope_at(off_grid(pictures(2, SIDE, SIDE)))
        expect(bool(slope.isfinite().all()), "expected a finite gradient, got NaN or infinity.")
        alive = (slope != 0).flatten(1).any(dim=1)
        expect(
            bool(alive.all()),
            "expected a gradient at the images, got zero everywhere: state a surrogate with a slope.",
        )
        share = (slope != 0).float().mean().item()
        return f"finite, nonzero at {100 * share:.0f} % of the values"

    def slope(self) -> str:
        """The gradient of a differentiable purifier against central differences along random directions."""
        x = off_grid(pictures(2, SIDE, SIDE))
        directions = _signs(x, 6)
        slope = self.slope_at(x).double()
        expected = torch.stack([(slope * direction).flatten(1).sum(dim=1) for direction in directions])
        errors = []
        for step in SLOPE_STEPS:
            rises = [self.value(x + step * d) - self.value(x - step * d) for d in directions]
            errors.append((torch.stack(rises) / (2 * step) - expected).norm() / expected.norm())
        error = min(errors).item()
        expect(
            error <= SLOPE_TOLERANCE,
            f"expected the gradient to be that of purify, as a differentiable purifier declares; finite differences"
            f" along random directions are off by {100 * error:.0f} %.",
        )
        return f"finite differences agree to {100 * error:.2g} %"

    def surrogate_leads_up(self) -> str:
        """What a surrogate is for: a step along its slope raises the defended score, far more than a random one."""
        x, step = pictures(4, SIDE, SIDE), 8 / 255

        def gain(direction: torch.Tensor) -> float:
            up, down = (x + step * direction).clamp(0, 1), (x - step * direction).clamp(0, 1)
            return (self.value(up) - self.value(down)).mean().item() / 2

        found = gain(self.slope_at(x).sign())
        best = max(abs(gain(direction)) for direction in _signs(x, 8))
        expect(
            found > best,
            f"expected a step of 8/255 along the surrogate's slope to raise the defended score more than random"
            f" steps do; it changes it by {found:+.3g}, random ones by up to {best:.3g}.",
        )
        return f"a step along it raises the score by {found:.3g}, random ones by up to {best:.2g}"

    def references(self) -> str:
        model = ToyReference().eval()
        try:
            wrapped = self.defense.wrap(model).eval()
        except ContractError as error:
            return f"refuses full-reference models: {error}"
        x, near, far = pictures(3, SIDE, SIDE)[:, None]
        with torch.no_grad(), seeded([1]):
            first = wrapped(x, near)
        with torch.no_grad(), seeded([1]):
            second = wrapped(x, far)
        expect(not torch.equal(first, second), "expected the reference to reach a full-reference model.")
        return "passed on to full-reference models"

    def input_unchanged(self) -> str:
        x = pictures(2, SIDE, SIDE)
        kept = x.clone()
        self.value(x)
        leaf = x.clone().requires_grad_(True)
        with seeded([1, 2]):
            self.wrapped(leaf).sum().backward()
        expect(
            torch.equal(x, kept) and torch.equal(leaf.detach(), kept),
            "expected the images to be left as they were; work on a copy.",
        )
        return "images are left as they were"

    def model_unchanged(self) -> str:
        x = pictures(2, SIDE, SIDE)
        for training in (False, True):
            model = ToyNetwork().train(training)
            with untouched(model):
                wrapped = self.defense.wrap(model)
        model = ToyNetwork().eval()
        wrapped = self.defense.wrap(model)
        with untouched(model), seeded([1, 2]):
            leaf = x.clone().requires_grad_(True)
            torch.autograd.grad(wrapped(leaf).sum(), leaf, materialize_grads=True)
        return "parameters, buffers, modes and gradients are left as they were"

    def global_randomness(self) -> str:
        x = pictures(2, SIDE, SIDE)
        with no_global_randomness():
            wrapped = self.defense.wrap(self.model)
            with evaluation_mode(wrapped), torch.no_grad():
                wrapped(x)
        return "not used"

    def no_memory(self) -> str:
        before = parameters(self.defense)
        x, other = pictures(3, SIDE, SIDE), pictures(2, *SIZES[2])
        first = self.value(x)
        self.value(other)
        apart = (self.value(x) - first).abs().max().item()
        expect(
            apart == 0,
            f"expected the same scores after other images were seen, they differ by {apart:.3g} of 100.",
        )
        expect(parameters(self.defense) == before, "expected use to leave the parameters as they were.")
        return "a call leaves nothing behind for the next one"

    def gpu(self) -> str:
        """A model that is there stays there; a tensor that was made without a device meets its images."""
        with some_gpu() as (device, where):
            wrapped = self.defense.wrap(ToyNetwork().eval().to(device)).eval()
            x = off_grid(pictures(2, SIDE, SIDE)).to(device)
            with torch.no_grad(), seeded([1, 2]):
                found = wrapped(x).device
            expect(found == device, f"expected scores on {device}, where the model is, got {found}.")
            found = self.slope_at(x, wrapped).device
            expect(found == device, f"expected a gradient on {device}, where the images are, got one on {found}.")
        return f"scores and slopes {where}"

    def cost(self) -> str:
        side = max(256, self.wrapped.info.min_size)
        x = pictures(1, side, side)

        def milliseconds(model: IQAModel) -> float:
            times: list[float] = []
            while len(times) < COST_CALLS and sum(times) < COST_SECONDS:
                start = time.perf_counter()
                with torch.no_grad():
                    scores = model(x)
                times.append(time.perf_counter() - start)
                expect(
                    scores.shape == (1,) and bool(scores.isfinite().all()),
                    f"expected one finite score for an image of {side} x {side}, got {scores.tolist()}.",
                )
            return 1000 * min(times)

        fewer = self.in_full is not self.defense
        system = self.in_full.wrap(self.model).eval() if fewer else self.wrapped
        bare, defended = milliseconds(self.model), milliseconds(system)
        where = f"{side} x {side}{' with the default parameters' if fewer else ''}"
        return f"{defended:.1f} ms for an image of {where}, {bare:.1f} ms without the defense"


def _signs(x: torch.Tensor, count: int) -> list[torch.Tensor]:
    """`count` random directions of -1 and +1, of the shape of `x`."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 2, x.shape, generator=generator).float() * 2 - 1 for _ in range(count)]
