"""Scores in units of the model's range, for attacks that weigh the score against something else."""

from __future__ import annotations

from iqa_robust.attacks.objectives import Objective
from iqa_robust.errors import ContractError


def score_span(objective: Objective) -> float:
    """Width of the model's score range, in native units.

    Raises:
        ContractError: the range is unknown.
    """
    known = objective.info.score_range
    if known is None:
        raise ContractError(
            "this attack weighs the score against how visible the change is, for which it needs the model's range:"
            " give `score_range` in the track or in ModelInfo."
        )
    return known[1] - known[0]
