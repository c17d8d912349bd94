"""Universal adversarial patterns: one perturbation for all images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.attacks.trained_attack import Lesson
from iqa_robust.attacks.universal.pattern import State, UniversalAttack, scaled, tiled
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class Pattern(UniversalAttack):
    """One pattern that is repeated over any image from its top left corner, with `pattern` for its state.

    It holds values in units of eps for `linf`, so it may be tried at another eps, as in the papers; for the other norms
    it is a direction that is scaled to the budget image by image.
    """

    source = "Shumitskaya, Antsiferova, Vatolin, BMVC 2022"
    form = "published"
    note = "one pattern for all images, learned on the train split"

    def change(self, state: State, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """The pattern, repeated and scaled to the budget."""
        return scaled(tiled(state["pattern"], *x.shape[-2:]), x, budget.norm, budget.eps)

    def blank(self, lessons: Sequence[Lesson], size: int) -> torch.Tensor:
        """A pattern (1, 3, H, W) of zeros, of up to `size` pixels a side: no part lies outside all fitting images."""
        height, width = (min(size, max(lesson.x.shape[side] for lesson in lessons)) for side in (-2, -1))
        return torch.zeros(1, 3, height, width, device=lessons[0].x.device)


class UAP(Pattern):
    """A pattern learned by Adam (Shumitskaya et al., BMVC 2022; code of the MSU robustness benchmark).

    Maximizes the mean value over batches of 4 images from a pattern of zeros, clamped to the budget after every step.
    The authors take steps of 0.001, within 0.1 in the benchmark (10,000 images of 256 x 256, 5 epochs) or within
    10/255 (10 epochs). Here steps are `step_ratio` times eps, a quarter: few images, as of a fitting split, then use
    the budget, and with 64 of them the pattern moves held-out scores further. Adam's epsilon is 1e-16, so that the
    scale of the scores does not matter.
    """

    def __init__(
        self,
        *,
        weights: str | None = None,
        fit_images: int = 64,
        fit_epochs: int = 5,
        size: int = 256,
        step_ratio: float = 0.25,
    ) -> None:
        """Parameters of the fit.

        Args:
            weights: a file written by `save`, instead of fitting.
            fit_images: images of the fitting split to learn from.
            fit_epochs: how often each is seen.
            size: height and width of the pattern in pixels, at most; no larger than the largest fitting image.
            step_ratio: Adam's rate, as a fraction of eps.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(weights=weights, fit_images=fit_images, fit_epochs=fit_epochs)
        check_whole(self, "size", size, least=1)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.size = size
        self.step_ratio = step_ratio

    def learn_side(self, lessons: Sequence[Lesson], budget: Budget, rng: ImageRNG) -> State:
        """`pattern` (1, 3, H, W)."""
        pattern = self.blank(lessons, self.size).requires_grad_(True)
        optimizer = torch.optim.Adam([pattern], lr=self.step_ratio, eps=1e-16, maximize=True)

        def step() -> None:
            optimizer.step()
            optimizer.zero_grad()
            if budget.norm == "linf":
                with torch.no_grad():
                    pattern.clamp_(-1, 1)

        self.train(lessons, rng, lambda x: self.change({"pattern": pattern}, x, budget), step)
        return {"pattern": pattern}


class CumulativeUAP(Pattern):
    """A pattern that adds up raw gradients (cumulative UAP, Shumitskaya et al., 2024; MSU robustness benchmark).

    pattern += `rate` times the gradient of the mean score of a batch of 4 images, the score in units of the model's
    range and the pattern in units of full scale; without sign or normalization, clamped to eps for `linf`. Where the
    range is unknown, that of the clean scores of the fitting images serves. The released code has the rate 1 and sees
    thousands of batches, one image or eight at a time; the default of 10 was stronger with 64 photographs and 5 passes.
    """

    source = "Shumitskaya, Antsiferova, Vatolin, Computer Vision and Image Understanding 2024"

    def __init__(
        self,
        *,
        weights: str | None = None,
        fit_images: int = 64,
        fit_epochs: int = 5,
        size: int = 256,
        rate: float = 10.0,
    ) -> None:
        """Parameters of the fit; all but `rate` are those of `UAP`. Raises `ContractError` as it does."""
        super().__init__(weights=weights, fit_images=fit_images, fit_epochs=fit_epochs)
        check_whole(self, "size", size, least=1)
        check_number(self, "rate", rate, above=0)
        self.size = size
        self.rate = rate

    def learn_side(self, lessons: Sequence[Lesson], budget: Budget, rng: ImageRNG) -> State:
        """`pattern` (1, 3, H, W)."""
        total = self.blank(lessons, self.size).requires_grad_(True)
        units = budget.eps if budget.norm == "linf" and budget.eps > 0 else 1.0

        def step() -> None:
            assert total.grad is not None  # `train` has just filled it
            with torch.no_grad():
                total.add_(self.rate * total.grad)
                if budget.norm == "linf":
                    total.clamp_(-budget.eps, budget.eps)
            total.grad = None

        def change(x: torch.Tensor) -> torch.Tensor:
            # The perturbation has the value of the scaled pattern and the slope of the plain one.
            plain = tiled(total, *x.shape[-2:]).expand_as(x)
            return plain + (scaled(tiled(total / units, *x.shape[-2:]), x, budget.norm, budget.eps) - plain).detach()

        self.train(lessons, rng, change, step)
        return {"pattern": total / units}
