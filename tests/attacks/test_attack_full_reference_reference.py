"""PGD on the reference: the same as PGD on the image where a model does not tell them apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust.attacks.full_reference.reference import PGDReference
from iqa_robust.attacks.gradient.pgd import PGD
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.full_reference import PSNR, SSIM
from iqa_robust.records import Budget


def pair(images: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    x = images(3, size=24, low=60, high=200)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    return x, torch.round((x + 0.05 * noise).clamp(0, 1) * 255) / 255


@pytest.mark.parametrize("make", [PSNR, SSIM])
@pytest.mark.parametrize("goal", ["up", "down", "away", "reflect", "target"])
def test_a_symmetric_model_makes_no_difference(
    images: Callable[..., torch.Tensor], make: type[IQAModel], goal: str
) -> None:
    x, ref = pair(images)
    model, budget = make(), Budget(eps_255=3, steps=4)
    target = {"target": 0.5 if make is SSIM else 30.0} if goal == "target" else {}
    on_reference = PGDReference()(model, x, ref, goal=goal, budget=budget, **target)
    on_image = PGD()(model, ref, x, goal=goal, budget=budget, **target)
    # Sums in another order may turn a few signs: a thousandth of the range of the scores seen.
    scale = 1.0 if make is SSIM else 40.0
    torch.testing.assert_close(on_reference.score_adv, on_image.score_adv, rtol=0, atol=1e-3 * scale)
    torch.testing.assert_close(on_reference.score_clean, on_image.score_clean, rtol=0, atol=1e-5 * scale)


def test_the_reference_changes_within_the_budget_and_the_score_is_the_models(
    images: Callable[..., torch.Tensor], full_reference: IQAModel
) -> None:
    x, ref = pair(images)
    kept = x.clone(), ref.clone()
    result = PGDReference()(full_reference, x, ref, goal="down", budget=Budget(eps_255=5, steps=3))
    assert torch.equal(x, kept[0]) and torch.equal(ref, kept[1])
    change = (result.images - ref).abs().flatten(1).amax(dim=1)
    assert bool((change <= 5 / 255 + 1e-6).all() and (change > 0).all())
    torch.testing.assert_close(result.linf, change, rtol=0, atol=1e-6)  # float32 of k/255
    with torch.no_grad():
        torch.testing.assert_close(result.score_adv, full_reference(x, result.images))
    # -mean (x - ref)^2 falls fastest by moving every value of the reference away from the image, which PGD finds.
    away = torch.where(x == ref, 1.0, (ref - x).sign())
    with torch.no_grad():
        best = full_reference(x, ref + 5 / 255 * away)
    torch.testing.assert_close(result.score_adv, best, rtol=1e-3, atol=0)  # values equal at the start may go either way


def test_it_refuses_models_without_references(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    with pytest.raises(ContractError, match="perturbing the reference needs a full-reference model"):
        PGDReference()(linear, images(), images(), goal="up", budget=Budget())
    info = ModelInfo(full_reference=True)
    assert info.full_reference and PGDReference.perturbs == "reference" and PGD.perturbs == "image"
