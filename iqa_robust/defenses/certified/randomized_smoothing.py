"""`randomized-smoothing`: noisy copies vote for a bin of the score scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from iqa_robust.defenses.base import Defense
from iqa_robust.defenses.certified import bounds
from iqa_robust.defenses.certified.smoothing import FEW_COPIES, SmoothedModel, Smoothing
from iqa_robust.errors import ContractError
from iqa_robust.models.base import Certificate, IQAModel, check_model


class RandomizedSmoothing(Defense):
    """The bin of the score scale that most noisy copies fall into, and a radius within which it stays the same.

    The model's score range is cut into equal bins, with one class more below and one above. The winning bin is a
    classifier, smoothed as Cohen et al. do: `copies` draws name the bin, `certify_copies` others bound its share p from
    below (Clopper-Pearson), and the radius is sigma (Phi^-1(p) - Phi^-1(m)). Theirs has m = 1/2 and is one for the
    exact majority; ours is for the score that is measured: m is the share at which also the majority of the copies
    behind a score wins. Where p does not exceed m, or beyond the radius, the certificate abstains.

    The score is the mean of the copies that voted for the winning bin, so it keeps an order within a bin and always
    lies inside of it. The attacker differentiates the mean of all his copies: a vote has no slope.

    Args:
        sigma: standard deviation of the noise, full scale 1.
        bins: equal parts of the score range.
        copies: noisy copies behind a score.
        certify_copies: copies behind a certificate.
        attack_copies: copies behind a gradient or an evaluation of a search; see `median-smoothing`.
        confidence: the least probability, per image, that certificate and score are as promised.

    Raises:
        ContractError: a parameter has the wrong type or lies outside its range; on use, the model's score range is
            unknown.
    """

    deterministic = False
    check_params: ClassVar[Mapping[str, Any]] = FEW_COPIES
    source = "Cohen, Rosenfeld, Kolter, ICML 2019, arXiv:1902.02918"
    form = "adapted"

    def __init__(
        self,
        *,
        sigma: float = 0.12,
        bins: int = 10,
        copies: int = 100,
        certify_copies: int = 1000,
        attack_copies: int = 8,
        confidence: float = 0.999,
    ) -> None:
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise ContractError(f"RandomizedSmoothing: expected bins to be a whole number >= 1, got {bins!r}.")
        self.sigma = sigma
        self.bins = bins
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
        """The smoothed model, which certifies. Raises `ContractError` without a score range."""
        check_model(model)
        if model.info.score_range is None:
            raise ContractError(
                "RandomizedSmoothing cuts the score range into bins, which is unknown:"
                " give `score_range` in the track or in ModelInfo."
            )
        return BinModel(model, self._smoothing, self.bins)


class BinModel(SmoothedModel):
    """The winning bin of noisy copies."""

    def __init__(self, model: IQAModel, smoothing: Smoothing, bins: int) -> None:
        """`bins` equal parts of `model.info.score_range`."""
        super().__init__(model, smoothing)
        assert model.info.score_range is not None  # the defense has looked
        self.edges = torch.linspace(*model.info.score_range, bins + 1, dtype=torch.float64)

    def summary(self, scores: torch.Tensor) -> torch.Tensor:
        """The mean (N,) of the votes for the winning bin; of bins with equal votes, the lowest wins."""
        classes = self._classes(scores)
        winner = self._votes(classes).argmax(dim=1, keepdim=True)
        mine = (classes == winner).to(scores.dtype)
        return (scores * mine).sum(dim=1) / mine.sum(dim=1)

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate:
        """The bin, where the L2 distance is within its radius."""
        settings = self.smoothing
        with torch.no_grad():
            winner = self._votes(self._classes(self.noisy_scores(x, ref, settings.copies))).argmax(dim=1)
            votes = self._votes(self._classes(self.noisy_scores(x, ref, settings.certify_copies)))
        hits = votes.gather(1, winner.unsqueeze(1)).squeeze(1).tolist()
        needed = bounds.share_for_majority(settings.copies, settings.scoring_failure)
        shares = [bounds.share_at_least(int(k), settings.certify_copies, settings.certifying_failure) for k in hits]
        reach = l2.new_tensor([bounds.radius(share, needed, settings.sigma) for share in shares])
        ends = torch.cat([self.edges.new_tensor([-torch.inf]), self.edges, self.edges.new_tensor([torch.inf])])
        ends = ends.to(l2)
        held = (reach > 0) & (l2 <= reach)
        low = torch.where(held, ends[winner], -torch.inf)
        return Certificate(low, torch.where(held, ends[winner + 1], torch.inf), reach)

    def _classes(self, scores: torch.Tensor) -> torch.Tensor:
        """0 below the range, 1 to `bins` inside, `bins` + 1 above. Inner edges belong to the bin above them."""
        edges = self.edges.to(scores.device)
        inside = torch.bucketize(scores.detach().double(), edges, right=True)
        return inside - (scores.detach().double() == edges[-1]).long()

    def _votes(self, classes: torch.Tensor) -> torch.Tensor:
        """(N, bins + 2) copies per class."""
        return torch.nn.functional.one_hot(classes, len(self.edges) + 1).sum(dim=1)
