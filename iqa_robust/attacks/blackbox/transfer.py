"""Transfer from surrogates: the perturbation is made on models the attacker has, and only tried on the victim."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch.nn import functional

from iqa_robust import models
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.ascent import ascend
from iqa_robust.attacks.norms import project
from iqa_robust.attacks.objectives import Goal, Objective, best_of
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG, draws
from iqa_robust.records import Budget

SCALES = (1.0, 0.5, 0.25, 0.125)
"""Toward a target, the perturbation is tried in these lengths, since the surrogates do not know the victim's scale."""


class Transfer(Attack):
    """Climbs the mean standardized score of an ensemble of surrogates; the victim does not guide the climb.

    Every surrogate's score is counted as a share of its range, better being higher. The climb is that of `pgd`, with
    the momentum that makes perturbations transfer (Dong et al.). With `smoothing`, every gradient is the mean over
    noisy copies of the image, which is the core of SEGA (Liu et al., arXiv:2509.18546); its sign ensemble and its
    filter mask are not built.

    The direction is the goal's, or the one toward its target; for `away` both are climbed. The victim is only asked
    about the ends: for `away` the two of them, otherwise the perturbation and its mirror image, in case the victim
    answers the other way; toward a target both in four lengths. That makes two or eight queries.
    """

    access = "black"
    aims = False
    norms = ("linf", "l2", "psnr", "ssim")
    source = "Dong, Liao, Pang, Su, Zhu, Hu, Li, CVPR 2018 (arXiv:1710.06081)"
    form = "adapted"

    def __init__(
        self,
        *,
        surrogates: Sequence[str] = ("compact",),
        momentum: float = 1.0,
        step_ratio: float = 2.0,
        smoothing: float = 0.0,
        samples: int = 8,
    ) -> None:
        """Parameters of the ensemble and the climb.

        Args:
            surrogates: names of no-reference models in the registry, each as `name` or `name:weights`.
            momentum: decay of the accumulated gradient; 0 uses each gradient alone.
            step_ratio: the first step as a fraction of eps; the steps shrink linearly towards zero.
            smoothing: standard deviation of the noise of the copies, as a fraction of full scale; 0 for none.
            samples: noisy copies per gradient.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        listed = isinstance(surrogates, (list, tuple)) and bool(surrogates)
        if not listed or not all(isinstance(name, str) and name for name in surrogates):
            raise ContractError(f"Transfer: expected surrogates to be a list of model names, got {surrogates!r}.")
        check_number(self, "momentum", momentum, least=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        check_number(self, "smoothing", smoothing, least=0)
        check_whole(self, "samples", samples, least=1)
        self.surrogates = surrogates
        self.momentum = momentum
        self.step_ratio = step_ratio
        self.smoothing = smoothing
        self.samples = samples

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the end of the climb that suits the victim best."""
        ensemble = _Ensemble([_loaded(name, x.device) for name in self.surrogates], self.smoothing)
        better = 1.0 if objective.info.higher_is_better else -1.0
        ends = []
        for side in objective.sides():
            goal = side.goal
            native = goal.sign if goal.target is None else (goal.target - objective.score_clean).sign()
            if native is None:
                raise ContractError("Transfer: this goal has neither a direction nor a target.")
            end = self._climb(ensemble, better * native, x, budget, rng)
            for scale in (1.0,) if goal.target is None else SCALES:
                ends.append(x + scale * (end - x))
                if len(objective.sides()) == 1:
                    ends.append(project(x - scale * (end - x), x, budget.norm, budget.eps))
        return best_of(objective, ends)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The ends that are tried on the victim."""
        return (2 * len(SCALES) if goal in ("reflect", "target") else 2), 0

    def _climb(
        self, ensemble: _Ensemble, sign: torch.Tensor, x: torch.Tensor, budget: Budget, rng: ImageRNG
    ) -> torch.Tensor:
        """(N, 3, H, W): where the ensemble's score is best (sign +1) or worst (-1)."""
        free = Budget(norm=budget.norm, eps_255=budget.eps_255, steps=budget.steps, eot=self.samples)
        with torch.enable_grad():
            objective = Objective(
                ensemble,
                x,
                None,
                goal=Goal(sign=sign),
                score_clean=torch.zeros_like(sign),  # the climb does not depend on it
                budget=free,
                seeds=rng.seeds,
                white_box=True,
            )
            return ascend(objective, x, x, free, rng, step_ratio=self.step_ratio, momentum=self.momentum)


class _Ensemble(IQAModel):
    """The mean of the surrogates' scores as shares of their ranges, higher being better.

    Images smaller than a surrogate accepts are enlarged for it.
    """

    def __init__(self, members: Sequence[IQAModel], smoothing: float) -> None:
        super().__init__()
        self.members = tuple(members)
        self.smoothing = smoothing
        repeatable = smoothing == 0 and all(member.info.deterministic for member in members)
        self.info = ModelInfo(score_range=(0.0, 1.0), deterministic=repeatable)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,)."""
        if self.smoothing > 0:
            x = x + self.smoothing * draws(len(x), x.device).normal(x.shape[1:])
        return torch.stack([_share(member, x) for member in self.members]).mean(dim=0)


def _share(member: IQAModel, x: torch.Tensor) -> torch.Tensor:
    """(N,) the score as a share of the range, counted toward better quality."""
    size = [max(side, member.info.min_size) for side in x.shape[-2:]]
    if size != list(x.shape[-2:]):
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    low, high = member.info.score_range or (0.0, 1.0)
    share = (member(x).float() - low) / (high - low)
    return share if member.info.higher_is_better else 1 - share


@functools.lru_cache(maxsize=4)
def _loaded(name: str, device: torch.device) -> IQAModel:
    """A surrogate, loaded once. Raises `ContractError` for one that needs references or has no known range."""
    registered, _, weights = name.partition(":")
    model = models.create(registered, **({"weights": weights} if weights else {})).to(device).eval()
    if model.info.full_reference or model.info.score_range is None:
        missing = "needs references" if model.info.full_reference else "has no known score range"
        raise ContractError(f"Transfer: the surrogate {name!r} {missing}; choose no-reference models with a range.")
    return model.requires_grad_(False)
