"""A model that was trained to be robust, as a defense of its bare twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqa_robust import models
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, check_model


class Trained(Defense):
    """Puts another model in the place of the bare one: the same network with the weights of robust training.

    An oblivious attacker then has the bare twin (transfer), an adaptive one the trained model, and the shift is told
    from both sets of clean scores. Nothing of the bare model is used but its contract.

    Args:
        model: registry name of the trained model.
        params: parameters of its constructor, such as `weights`.

    Raises:
        ContractError: at `wrap`, when the two models count scores in another direction, have different ranges, or only
            one of them needs a reference.
        UnknownNameError: at `wrap`, when there is no such model.
    """

    form = "ours"

    def __init__(self, *, model: str, params: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.params = params

    def wrap(self, model: IQAModel) -> IQAModel:
        """The trained model, in the mode of the bare one."""
        check_model(model)
        twin = models.create(self.model, **(self.params or {})).train(model.training)
        for name in ("higher_is_better", "full_reference", "score_range"):
            bare, trained = getattr(model.info, name), getattr(twin.info, name)
            if bare != trained:
                raise ContractError(
                    f"Trained: expected {self.model} to keep the bare model's {name} = {bare}, got {trained};"
                    " compare models that answer on one scale."
                )
        return twin
