"""Adapters of torchattacks and ART against the libraries themselves, and their isolation."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchattacks
from art.attacks.evasion import FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from torch import nn

from iqa_robust import attacks
from iqa_robust.attacks.adapters.libraries import TwoLogitView
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG, content_seeds
from iqa_robust.records import Budget

ADAPTERS = ["torchattacks/pgd", "art/fgm"]


class PlainClassifier(nn.Module):
    """Logits (0, f(x) / 1000), written without the adapter's view."""

    def __init__(self, model: IQAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.model(x) / 1000
        return torch.stack([torch.zeros_like(score), score], dim=1)


def _objective(model: IQAModel, x: torch.Tensor, goal: Goal, budget: Budget) -> Objective:
    return Objective(
        model,
        x,
        None,
        goal=goal,
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=True,
    )


@pytest.mark.parametrize("random_start", [True, False])
def test_torchattacks_runs_as_it_does_by_itself(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, random_start: bool
) -> None:
    x, budget = images(3), Budget(eps_255=8, steps=5)
    seeds = content_seeds(x, 0)
    attack = attacks.create("torchattacks/pgd", random_start=random_start)
    objective = _objective(convolutional, x, Goal(sign=torch.ones(3)), budget)
    adapted = attack.perturb(objective, x, budget, ImageRNG(seeds))
    plain = torchattacks.PGD(
        PlainClassifier(convolutional).eval(), eps=8 / 255, alpha=2 / 255, steps=5, random_start=random_start
    )
    for i, seed in enumerate(seeds):
        torch.manual_seed(seed)
        alone = plain(x[i : i + 1], torch.zeros(1, dtype=torch.int64))
        # The two views scale gradients differently, so a slope near zero may change its sign by rounding.
        assert (adapted[i : i + 1] != alone).float().mean() < 0.005


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_art_runs_as_it_does_by_itself(images: Callable[..., torch.Tensor], convolutional: IQAModel, norm: str) -> None:
    x, budget = images(3), Budget(norm=norm, eps_255=8 if norm == "linf" else 300)
    objective = _objective(convolutional, x, Goal(sign=-torch.ones(3)), budget)
    adapted = attacks.create("art/fgm").perturb(objective, x, budget, ImageRNG(content_seeds(x, 0)))
    classifier = PyTorchClassifier(
        model=PlainClassifier(convolutional).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    order = np.inf if norm == "linf" else 2
    plain = FastGradientMethod(classifier, norm=order, eps=budget.eps)
    labels = np.array([[0.0, 1.0]], dtype=np.float32)  # class 1 loses when the score falls
    alone = torch.cat([torch.from_numpy(plain.generate(image[None].numpy(), y=labels)) for image in x])
    if norm == "linf":  # as above
        assert (adapted != alone).float().mean() < 0.005
    else:  # float32 sums of squares
        torch.testing.assert_close(adapted, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("goal", ["push", "target"])
def test_the_view_has_the_objectives_sign_gradient_at_every_scale(
    images: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    make_model: type[IQAModel],
    scale: float,
    goal: str,
) -> None:
    model = make_model(lambda x: scale * ((x * weights).flatten(1).sum(dim=1) + 50))
    x = images(2)
    aim = Goal(sign=torch.ones(2)) if goal == "push" else Goal(target=model(x) - 80 * scale)
    objective = _objective(model, x, aim, Budget())
    _, slope = objective.gradient(x)
    for i in range(2):
        leaf = (x[i : i + 1] + 0.01).clamp(0, 1).requires_grad_(True)
        logits = TwoLogitView(objective, i, x.device)(leaf)
        nn.functional.cross_entropy(logits, torch.zeros(1, dtype=torch.int64)).backward()
        assert bool((leaf.grad.sign() == slope[i].sign()).all())
        assert logits.argmax(dim=1).item() == 0
        cosine = nn.functional.cosine_similarity(leaf.grad.flatten(), slope[i].flatten(), dim=0)
        assert cosine.item() == pytest.approx(1, abs=1e-6)  # float32 rounding


def test_scores_used_as_logits_would_have_lost_the_gradient(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    """Why the view squeezes the objective: a target 200 away saturates the softmax to an exact zero."""
    x = images(1).requires_grad_(True)
    value = -(linear(x) - 250).abs()
    naive = torch.stack([torch.zeros_like(value), value], dim=1)
    nn.functional.cross_entropy(naive, torch.zeros(1, dtype=torch.int64)).backward()
    assert not x.grad.any()


def test_the_views_logit_rises_with_the_objective(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    x = images(1)
    score_of: list[float] = [0.0]
    model = make_model(lambda z: z.flatten(1).sum(dim=1) * 0 + score_of[0])
    objective = _objective(model, x, Goal(sign=torch.ones(1)), Budget())
    view = TwoLogitView(objective, 0, x.device)
    logits = []
    for value in (-1e6, -100.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 100.0, 1e6):
        score_of[0] = value
        logits.append(view(x)[0, 1].item())
    assert logits == sorted(logits) and len(set(logits)) == len(logits)
    assert logits[0] >= -1 and logits[-1] <= 1


@pytest.mark.parametrize("goal,queries,gradients", [("up", 4, 4), ("away", 10, 8)])
def test_the_librarys_passes_are_counted(
    images: Callable[..., torch.Tensor], linear: IQAModel, goal: str, queries: int, gradients: int
) -> None:
    attack = attacks.create("torchattacks/pgd")
    result = attack(linear, images(), goal=goal, budget=Budget(steps=4))
    assert result.queries.tolist() == [queries] * 4
    assert result.gradients.tolist() == [gradients] * 4
    assert attack.cost(Budget(steps=4), goal) == (queries, gradients)
    single = attacks.create("art/fgm")
    result = single(linear, images(), goal=goal, budget=Budget(steps=4))
    assert (result.queries[0].item(), result.gradients[0].item()) == single.cost(Budget(steps=4), goal)


def test_a_library_that_runs_out_of_queries_keeps_its_best_image(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    x = images()
    result = attacks.create("torchattacks/pgd")(linear, x, goal="up", budget=Budget(steps=10, queries=3))
    assert result.queries.tolist() == [3] * 4
    assert bool((result.score_adv > result.score_clean).all())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_library_changes_nothing_outside(
    images: Callable[..., torch.Tensor],
    convolutional: IQAModel,
    name: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    convolutional.train()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    with caplog.at_level(logging.WARNING):
        attacks.create(name)(convolutional, images(), goal="away", budget=Budget(steps=2))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert all(module.training for module in convolutional.modules())
    assert all(parameter.grad is None for parameter in convolutional.parameters())
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not caplog.records


@pytest.mark.parametrize("name", ADAPTERS)
def test_importing_a_library_has_no_side_effects(name: str, tmp_path: object) -> None:
    """Left alone, both edit the warning filters, and ART closes every logging handler of the program."""
    program = f"""
        import io, logging, warnings
        import numpy, torch
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        registered = len(logging._handlerList)
        warnings.simplefilter("error", ResourceWarning)
        filters = list(warnings.filters)
        states = torch.get_rng_state().sum().item(), numpy.random.get_state()[1].sum()
        from iqa_robust import attacks
        attacks.get({name!r})
        assert warnings.filters == filters, "filters"
        assert len(logging._handlerList) >= registered, "handlers"
        assert states == (torch.get_rng_state().sum().item(), numpy.random.get_state()[1].sum()), "seeds"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_reference_model_can_be_attacked_by_a_library(
    images: Callable[..., torch.Tensor], full_reference: IQAModel
) -> None:
    x, ref = images(2, seed=1), images(2, seed=2)
    for name in ADAPTERS:
        result = attacks.create(name)(full_reference, x, ref, goal="up", budget=Budget(steps=4))
        assert bool((result.score_adv > result.score_clean).all())


def test_a_score_of_nan_does_not_reach_the_images(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    model = make_model(lambda x: x.flatten(1).sum(dim=1) * torch.nan, ModelInfo(score_range=(0, 1)))
    for name in ADAPTERS:
        result = attacks.create(name)(model, images(2), goal="up", budget=Budget(steps=2))
        assert bool(result.images.isfinite().all()) and bool(result.score_adv.isnan().all())
