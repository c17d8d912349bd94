"""A trained model in the place of its bare twin."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from iqa_robust import defenses, models, testing
from iqa_robust.errors import ContractError, UnknownNameError


def test_the_twin_answers_and_the_bare_model_stays() -> None:
    bare = models.create("compact").eval()
    defended = defenses.create("trained", model="compact", params={"weights": "student"}).wrap(bare)
    student = models.create("compact", weights="student").eval()
    x = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(defended(x), student(x))
        assert not torch.equal(defended(x), bare(x))
    assert defended.info.weights_sha256 == student.info.weights_sha256 != bare.info.weights_sha256


def test_models_on_different_scales_are_refused() -> None:
    bare = models.wrap(models.create("compact"), dataclasses.replace(models.create("compact").info, score_range=None))
    with pytest.raises(ContractError, match="score_range"):
        defenses.create("trained", model="compact").wrap(bare)
    with pytest.raises(UnknownNameError):
        defenses.create("trained", model="compcat").wrap(bare)


def test_a_trained_twin_keeps_the_contract_of_a_model() -> None:
    testing.check_model(defenses.create("trained", model="compact").wrap(models.create("compact"))).raise_if_failed()
