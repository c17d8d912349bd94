"""Adapters of torchattacks and ART against the libraries themselves, the views they are shown, and their isolation."""

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
from art.attacks import evasion
from art.estimators.classification import PyTorchClassifier
from torch import nn

from iqa_robust import attacks
from iqa_robust.attacks.adapters.libraries import scaled
from iqa_robust.attacks.adapters.views import (
    BudgetView,
    Cropped,
    FourLogitView,
    ProbabilityView,
    ThresholdView,
    TwoLogitView,
    ValueView,
)
from iqa_robust.attacks.norms import distance, inside
from iqa_robust.attacks.objectives import Goal, Objective, QueryBudgetExhaustedError
from iqa_robust.errors import ContractError
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


def _objective(model: IQAModel, x: torch.Tensor, goal: Goal, budget: Budget, *, white_box: bool = True) -> Objective:
    return Objective(
        model,
        x,
        None,
        goal=goal,
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=white_box,
    )


@pytest.mark.parametrize(
    "name", ["fgsm", "ffgsm", "bim", "rfgsm", "pgd", "mi-fgsm", "ni-fgsm", "upgd", "pi-fgsm", "pi-fgsm-pp", "pgd-l2"]
)
def test_torchattacks_runs_as_it_does_by_itself(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str
) -> None:
    attack = attacks.create(f"torchattacks/{name}")
    x, norm = images(3), attack.norms[0]
    budget = Budget(norm=norm, eps_255=8 if norm == "linf" else 300, steps=5)
    seeds = content_seeds(x, 0)
    objective = _objective(convolutional, x, Goal(sign=torch.ones(3)), budget)
    adapted = attack.perturb(objective, x, budget, ImageRNG(seeds))
    library = getattr(torchattacks, attack.library_class)
    for i, seed in enumerate(seeds):
        torch.manual_seed(seed)
        plain = library(PlainClassifier(convolutional).eval(), **attack.arguments(x[i : i + 1], budget))
        alone = plain(x[i : i + 1], torch.zeros(1, dtype=torch.int64))
        if norm == "linf":
            # The two views scale gradients differently, so a slope near zero may change its sign by rounding.
            assert (adapted[i : i + 1] != alone).float().mean() < 0.01
        else:  # float32 sums of squares, over five steps
            torch.testing.assert_close(adapted[i : i + 1], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["fgm", "bim", "pgd", "momentum-iterative", "pgd-pytorch"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_art_runs_as_it_does_by_itself(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str, norm: str
) -> None:
    """On a classifier, whereas the adapters of all but the last show ART a regression model."""
    params = {"random_start": False} if name == "pgd-pytorch" else {}
    attack = attacks.create(f"art/{name}", **params)
    if norm not in attack.norms:
        pytest.skip(f"{name} does not serve {norm}")
    x, budget = images(3), Budget(norm=norm, eps_255=8 if norm == "linf" else 300, steps=5)
    objective = _objective(convolutional, x, Goal(sign=-torch.ones(3)), budget)
    adapted = attack.perturb(objective, x, budget, ImageRNG(content_seeds(x, 0)))
    classifier = PyTorchClassifier(
        model=PlainClassifier(convolutional).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 16, 16),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    plain = getattr(evasion, attack.library_class)(classifier, **attack.arguments(x[:1], budget))
    labels = np.array([[0.0, 1.0]], dtype=np.float32)  # class 1 loses when the score falls
    alone = torch.cat([torch.from_numpy(plain.generate(image[None].numpy(), y=labels)) for image in x])
    if norm == "linf":  # as above
        assert (adapted != alone).float().mean() < 0.01
    else:
        torch.testing.assert_close(adapted, alone, rtol=0, atol=1e-4)


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
        logits = TwoLogitView(objective, i, x[i : i + 1], Budget())(leaf)
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
    view = TwoLogitView(objective, 0, x, Budget())
    logits = []
    for value in (-1e6, -100.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 100.0, 1e6):
        score_of[0] = value
        logits.append(view(x)[0, 1].item())
    assert logits == sorted(logits) and len(set(logits)) == len(logits)
    assert logits[0] >= -1 and logits[-1] <= 1


@pytest.mark.parametrize("view", [ValueView, FourLogitView, ProbabilityView])
def test_the_other_views_lead_where_the_objective_does(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, view: type[TwoLogitView]
) -> None:
    x = images(1)
    objective = _objective(convolutional, x, Goal(sign=torch.ones(1)), Budget())
    _, slope = objective.gradient(x)
    leaf = x.clone().requires_grad_(True)
    shown = view(objective, 0, x, Budget())(leaf)
    if view is FourLogitView:
        first, second, third, fourth = shown[0]
        loss = -(first - second) / (first - 0.5 * third - 0.5 * fourth)  # Croce and Hein 2020, eq. 9
    else:
        loss = shown[0, -1]
    loss.backward()
    cosine = nn.functional.cosine_similarity(leaf.grad.flatten(), slope.flatten(), dim=0)
    assert cosine.item() == pytest.approx(1, abs=1e-5)  # float32 rounding
    if view is ValueView:
        torch.testing.assert_close(leaf.grad, slope)
    if view is ProbabilityView:
        assert shown.sum().item() == pytest.approx(1) and bool((shown > 0).all())


def test_class_one_wins_where_the_score_has_moved_by_the_threshold(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    x, budget = images(1, low=100, high=150), Budget(eps_255=8)
    model = make_model(lambda z: 100 * z.flatten(1).mean(dim=1), ModelInfo(score_range=(0, 100)))
    view = ThresholdView(_objective(model, x, Goal(sign=-torch.ones(1)), budget), 0, x, budget, threshold=0.1)
    moves = torch.tensor([0.05, -0.05, -0.099, -0.3, -0.101, -0.2]).view(-1, 1, 1, 1)
    logits = view(x + moves)
    torch.testing.assert_close(logits[:, 1] - 1, -moves.flatten(), rtol=0, atol=1e-5)
    assert logits.argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(view.found, x - 0.101)
    assert inside(scaled(view.found, x, budget), x, "linf", budget.eps)
    torch.testing.assert_close(scaled(view.found, x, budget), x - budget.eps)


def test_a_threshold_out_of_reach_leaves_the_image_that_came_closest(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    x, budget = images(1, low=100, high=150), Budget(norm="l2", eps_255=100)
    model = make_model(lambda z: 100 * z.flatten(1).mean(dim=1), ModelInfo(score_range=(0, 100)))
    view = ThresholdView(_objective(model, x, Goal(sign=torch.ones(1)), budget), 0, x, budget, threshold=0.5)
    assert not view.ease()
    view(x + torch.tensor([-0.2, 0.2, 0.1]).view(-1, 1, 1, 1))
    torch.testing.assert_close(view.found, x + 0.2)
    assert view.ease()
    assert [view.crossed(x + move) for move in (0.09, 0.11)] == [False, True]
    torch.testing.assert_close(view.found, x + 0.11)
    length = distance(scaled(view.found, x, budget), x, "l2").item()
    assert length == pytest.approx(100 / 255, rel=1e-5)  # float32 rounding


def test_a_threshold_needs_a_score_range(images: Callable[..., torch.Tensor], make_model: type[IQAModel]) -> None:
    model = make_model(lambda z: z.flatten(1).mean(dim=1), ModelInfo())
    budget = Budget(norm="l2", eps_255=100)
    with pytest.raises(ContractError, match="score range"):
        attacks.create("torchattacks/deepfool")(model, images(1), goal="up", budget=budget)


def test_a_search_without_a_radius_is_scored_inside_the_budget(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    x, budget = images(1), Budget(eps_255=8)
    objective = _objective(linear, x, Goal(sign=torch.ones(1)), budget, white_box=False)
    with torch.no_grad():
        BudgetView(objective, 0, x, budget)(1 - x)
    assert inside(objective.tally.best_image, x, "linf", budget.eps)
    expected = linear((1 - x).clamp(x - budget.eps, x + budget.eps)) - linear(x)
    torch.testing.assert_close(objective.tally.best_value, expected.detach(), rtol=1e-4, atol=1e-4)


def test_a_square_only_search_leaves_the_margins_alone(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    x = images(1, size=20)[:, :, :, :14]
    model = make_model(lambda z: z[:, 0, 5, 3])
    crop = Cropped.square(ValueView(_objective(model, x, Goal(sign=torch.ones(1)), Budget()), 0, x, Budget()))
    assert x[crop.middle].shape == (1, 3, 14, 14)
    z = 1 - x[crop.middle]
    whole = crop.pasted(z)
    assert torch.equal(whole[:, :, 3:17], z)
    assert torch.equal(whole[:, :, :3], x[:, :, :3]) and torch.equal(whole[:, :, 17:], x[:, :, 17:])
    assert crop(z).item() == pytest.approx(1 - 2 * x[0, 0, 5, 3].item(), abs=1e-6)  # float32 rounding


def test_a_question_asked_again_costs_a_search_no_query(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x, budget = images(1), Budget(queries=10)
    objective = _objective(linear, x, Goal(sign=torch.ones(1)), budget, white_box=False)
    view = TwoLogitView(objective, 0, x, budget)
    with torch.no_grad():
        answers = [view(z) for z in (x, x / 2, x, x / 2, x / 4, x)]
    assert torch.equal(answers[0], answers[5]) and torch.equal(answers[1], answers[3])
    assert objective.tally.queries.item() == 3
    with torch.no_grad(), pytest.raises(QueryBudgetExhaustedError):  # also a search that goes round in circles ends
        for _ in range(100):
            view(x)
    assert objective.tally.queries.item() == 10


def test_of_too_many_questions_the_first_are_answered(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x, budget = images(1), Budget(queries=5)
    objective = _objective(linear, x, Goal(sign=torch.ones(1)), budget, white_box=False)
    many = torch.cat([x + 0.001 * i for i in range(8)]).clamp(0, 1)
    with torch.no_grad(), pytest.raises(QueryBudgetExhaustedError):
        TwoLogitView(objective, 0, x, budget)(many)
    assert objective.tally.queries.item() == 5
    gains = (linear(many[:5]) - linear(x)).detach()
    assert objective.tally.best_value.item() == pytest.approx(gains.max().item(), abs=1e-4)  # float32 rounding


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
