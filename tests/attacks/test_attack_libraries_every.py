"""What every adapter of a library keeps, and that its documentation page names each one, and each one left out."""

from __future__ import annotations

import functools
import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchattacks
from art.attacks import evasion

from iqa_robust import attacks
from iqa_robust.attacks.adapters import views
from iqa_robust.attacks.adapters.libraries import LibraryAttack
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import random_start, snap
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget
from iqa_robust.testing import check_attack
from iqa_robust.testing.pictures import pictures
from iqa_robust.testing.toy import ToyNetwork

NAMES = [name for name in attacks.names() if name.startswith(("torchattacks/", "art/"))]
EPS_255 = {"linf": 8.0, "l2": 200.0, "psnr": 4.0, "ssim": 10.0, "l0": 5.0, "patch": 10.0}
SHOWN = {
    views.TwoLogitView: "two logits",
    views.FourLogitView: "four logits",
    views.ProbabilityView: "two probabilities",
    views.ValueView: "the value",
    views.BudgetView: "two logits, inside the budget",
    views.BudgetProbabilityView: "two probabilities, inside the budget",
    views.ThresholdView: "two logits, parted by a threshold",
}
PAGE = Path(__file__).parents[2] / "docs" / "library_attacks.md"


def _budget(norm: str, **spend: int) -> Budget:
    return Budget(norm=norm, eps_255=EPS_255[norm], **{"steps": 4, "queries": 100, **spend})


def _goal(attack: Attack) -> str:
    return "up" if "up" in attack.goals else attack.goals[0]


@functools.cache
def _noise(norm: str) -> float:
    """Mean change of the score, in either direction, by a random point of the budget."""
    x, model, eps = pictures(2, 24, 30), ToyNetwork().eval(), EPS_255[norm] / 255
    with torch.no_grad():
        noisy = [snap(random_start(x, norm, eps, ImageRNG([i, i + 9])), x, norm, eps) for i in range(8)]
        return torch.stack([(model(z) - model(x)).abs() for z in noisy]).mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_the_score_moves_further_than_noise_moves_it(name: str) -> None:
    attack = attacks.create(name)
    for norm in attack.norms:
        result = attack(ToyNetwork().eval(), pictures(2, 24, 30), goal=_goal(attack), budget=_budget(norm))
        shift = result.score_adv - result.score_clean
        moved = shift.abs() if _goal(attack) == "away" else shift
        assert moved.mean().item() > _noise(norm), norm
        assert bool((result.queries <= 100).all())
        assert bool((result.gradients > 0).all()) == (attack.access == "white")


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_its_own_world(
    name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """The same result in a batch and alone and after other draws, and nobody else notices the library."""
    attack, x, model = attacks.create(name), pictures(2, 24, 30), ToyNetwork().eval()
    budget = _budget(attack.norms[0], steps=2, queries=40)
    goal = "away" if "away" in attack.goals else _goal(attack)
    results = []
    for seed, images in ((1, x), (2, x[1:])):
        expected = _draws(seed)
        _seed(seed)
        with caplog.at_level(logging.WARNING):
            results.append(attack(model, images, goal=goal, budget=budget, seed=3))
        assert _draws() == expected
    assert torch.equal(results[0].images[1:], results[1].images)
    assert results[0].queries[1] == results[1].queries[0]
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not caplog.records and not recwarn.list


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _draws(seed: int | None = None) -> tuple[float, float, float]:
    if seed is not None:
        _seed(seed)
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.mark.parametrize("name", NAMES)
def test_odd_answers_break_nothing(name: str, make_model: type[IQAModel]) -> None:
    """Scores of NaN, scores without a slope, and no room in the budget at all."""
    attack, x, info = attacks.create(name), pictures(1, 24, 30), ModelInfo(score_range=(0, 1))
    goal, budget = _goal(attack), _budget(attack.norms[0], steps=2, queries=20)
    sick = make_model(lambda z: z.flatten(1).mean(dim=1) * torch.nan, info)
    result = attack(sick, x, goal=goal, budget=budget)
    assert bool(result.images.isfinite().all()) and bool(result.score_adv.isnan().all())
    flat = make_model(lambda z: z.flatten(1).mean(dim=1).detach(), info)
    result = attack(flat, x, goal=goal, budget=budget)
    assert bool(result.zero_gradient.all()) == (attack.access == "white")
    nothing = Budget(norm=attack.norms[0], eps_255=0, steps=2, queries=20)
    assert torch.equal(attack(ToyNetwork().eval(), x, goal=goal, budget=nothing).images, x)


@pytest.mark.parametrize("name", NAMES)
def test_a_randomized_model_is_attacked_within_its_queries_and_repeatably(name: str, noisy: IQAModel) -> None:
    attack, x = attacks.create(name), pictures(1, 16, 16)
    budget = Budget(norm=attack.norms[0], eps_255=EPS_255[attack.norms[0]], steps=2, queries=40, eot=2)
    results = [attack(noisy, x, goal=_goal(attack), budget=budget) for _ in range(2)]
    assert torch.equal(results[0].images, results[1].images)
    assert results[0].queries.item() <= 40 and results[0].queries.item() % 2 == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_every_adapter_conforms(name: str) -> None:
    check_attack(attacks.create(name)).raise_if_failed()


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_says_where_it_comes_from(name: str) -> None:
    adapter = attacks.get(name)
    assert issubclass(adapter, LibraryAttack)
    assert adapter.form == "adapted" and re.search(r"\b(19|20)\d\d\b|torchattacks", adapter.source)
    steps, queries = attacks.create(name).cost(Budget(steps=7, queries=30), "away")
    assert steps > 0 and (queries > 0) == (adapter.access == "white")


def _rows(title: str) -> list[list[str]]:
    section = PAGE.read_text("utf-8").partition(f"\n## {title}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_and_the_registry_agree() -> None:
    rows = {row[0]: row[1:] for title in ("torchattacks", "ART") for row in _rows(title)}
    assert sorted(rows) == sorted(NAMES)
    for name, (library_class, access, norms, shown, source) in rows.items():
        adapter = attacks.get(name)
        assert library_class == adapter.library_class, name
        assert (access, norms) == (adapter.access, ", ".join(adapter.norms)), name
        assert shown == SHOWN[adapter.view], name
        assert source == adapter.source, name


def test_every_class_of_the_libraries_is_registered_or_left_out() -> None:
    left_out = {row[0] for row in _rows("Left out")}
    registered = {f"{name.partition('/')[0]}.{attacks.get(name).library_class}" for name in NAMES}
    assert not left_out & registered
    offered = {f"torchattacks.{name}" for name in torchattacks.__all__}
    offered |= {f"art.{name}" for name, value in vars(evasion).items() if isinstance(value, type)}
    assert offered <= left_out | registered
    assert (left_out | registered) - offered <= {"art.BrendelBethgeAttack"}  # only there with numba
