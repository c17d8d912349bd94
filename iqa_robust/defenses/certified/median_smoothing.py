"""`median-smoothing` and `denoised-median-smoothing`: the median score of noisy copies, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from iqa_robust import defenses
from iqa_robust.defenses.base import Defense, Purifier
from iqa_robust.defenses.certified import bounds
from iqa_robust.defenses.certified.smoothing import FEW_COPIES, SmoothedModel, Smoothing
from iqa_robust.errors import ContractError
from iqa_robust.models.base import Certificate, IQAModel


class MedianSmoothing(Defense):
    """The median of the model's scores under Gaussian noise, and an interval no nearby image's score leaves.

    For L2(d) <= e the median at x + d lies between the quantiles Phi(-e / sigma) and Phi(e / sigma) at x (Chiang et
    al., lemma 1). They are replaced by order statistics whose ranks come from binomial tails. Unlike the published
    interval, which is one for the exact median, ours is for the score that is measured, the mean of `SCORE_DRAWS`
    medians of `copies` draws: the quantiles start at those that such a median stays between.

    The attacker differentiates the mean of the scores of `attack_copies` copies, a smooth neighbor of their median; the
    median itself would pass on the slope of one copy. His evaluations take `attack_copies`, too, each averaged over the
    draws of his budget (`eot`); what he finds is scored with all `copies`.

    Args:
        sigma: standard deviation of the noise, full scale 1.
        copies: noisy copies behind a score.
        certify_copies: copies behind an interval.
        attack_copies: copies behind a gradient or an evaluation of a search.
        confidence: the least probability, per image, that interval and score are as promised.

    Raises:
        ContractError: a parameter has the wrong type or lies outside its range.
    """

    deterministic = False
    check_params: ClassVar[Mapping[str, Any]] = FEW_COPIES
    source = "Chiang, Curry, Abdelkader, Kumar, Dickerson, Goldstein, NeurIPS 2020, arXiv:2007.03730"
    form = "adapted"

    def __init__(
        self,
        *,
        sigma: float = 0.12,
        copies: int = 100,
        certify_copies: int = 1000,
        attack_copies: int = 8,
        confidence: float = 0.999,
    ) -> None:
        self.sigma = sigma
        self.copies = copies
        self.certify_copies = certify_copies
        self.attack_copies = attack_copies
        self.confidence = confidence
        self._smoothing = Smoothing(
            who=type(self).__name__,
            sigma=sigma,
            copies=copies,
            certify_copies=certify_copies,
            attack_copies=attack_copies,
            confidence=confidence,
        )

    def wrap(self, model: IQAModel) -> IQAModel:
        """The smoothed model, which certifies."""
        return MedianModel(model, self._smoothing)


class DenoisedMedianSmoothing(MedianSmoothing):
    """Median smoothing of a model behind a purifier, which sees the noisy copies first.

    The theorem holds for any function that is smoothed, so also for this one, and a model that has never seen noise
    gets images it knows. (The code released with one study switches the denoiser off in its denoised passes of bin
    smoothing; here it is on.)

    Args:
        sigma, certify_copies, attack_copies, confidence: as for `median-smoothing`.
        copies: likewise; fewer by default, because each of them is denoised.
        purifier: registry name of the purifier.
        purifier_params: its parameters; None for its defaults.

    Raises:
        ContractError: also when the named defense is not a purifier.
        UnknownNameError: there is no such defense.
    """

    source = "Chiang et al., NeurIPS 2020, arXiv:2007.03730; Salman et al., NeurIPS 2020, arXiv:2003.01908"

    def __init__(
        self,
        *,
        sigma: float = 0.12,
        copies: int = 40,
        certify_copies: int = 1000,
        attack_copies: int = 8,
        confidence: float = 0.999,
        purifier: str = "dncnn",
        purifier_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            sigma=sigma,
            copies=copies,
            certify_copies=certify_copies,
            attack_copies=attack_copies,
            confidence=confidence,
        )
        self.purifier = purifier
        self.purifier_params = purifier_params

    def wrap(self, model: IQAModel) -> IQAModel:
        """The smoothed model, denoiser included. Raises `ContractError` as the purifier does."""
        purifier = defenses.create(self.purifier, **(self.purifier_params or {}))
        if not isinstance(purifier, Purifier):
            raise ContractError(f"DenoisedMedianSmoothing: expected the name of a purifier, got {self.purifier!r}.")
        return super().wrap(purifier.wrap(model))


class MedianModel(SmoothedModel):
    """The median over noisy copies."""

    def summary(self, scores: torch.Tensor) -> torch.Tensor:
        """Medians (N,); of an even number of copies the mean of the middle two."""
        count = scores.shape[1]
        ordered = scores.sort(dim=1).values
        return (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate:
        """Order statistics of `certify_copies` new draws."""
        settings = self.smoothing
        count, failure = settings.certify_copies, settings.certifying_failure / 2  # of either end
        start = bounds.share_below_median(settings.copies, settings.scoring_failure / 2)
        with torch.no_grad():
            ordered = self.noisy_scores(x, ref, count).double().sort(dim=1).values
        low = ordered.new_full((len(x),), -torch.inf)
        high = ordered.new_full((len(x),), torch.inf)
        for i, distance in enumerate(l2.tolist()):
            rank = bounds.rank_below(bounds.moved_share(start, -distance / settings.sigma), count, failure)
            if rank:
                low[i], high[i] = ordered[i, rank - 1], ordered[i, count - rank]
        reach = bounds.radius(start, bounds.share_with_rank(count, failure), settings.sigma)
        return Certificate(low, high, torch.full_like(low, reach))
