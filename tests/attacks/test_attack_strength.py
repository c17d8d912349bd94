"""The project's own attacks are no weaker than the libraries' at equal budgets, on a real model and photographs.

The tolerance of 2 % of the mean shift, over both directions, is the project's own requirement, not one of rounding.
The searches that draw their proposals are compared by the mean over several seeds.
"""

from __future__ import annotations

import functools

import pytest
import torch

from iqa_robust import attacks, datasets, models
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget

EPS_255 = {"linf": 4.0, "l2": 120.0, "l0": 255 * 0.02, "patch": 255 * 0.06}

SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))

GRADIENT_PAIRS = [
    ("fgsm", "linf", ("torchattacks/fgsm", "art/fgm")),
    ("fgsm", "l2", ("art/fgm",)),
    ("i-fgsm", "linf", ("torchattacks/bim", "art/bim")),
    ("mi-fgsm", "linf", ("torchattacks/mi-fgsm", "art/momentum-iterative")),
    ("ni-fgsm", "linf", ("torchattacks/ni-fgsm",)),
    ("di-fgsm", "linf", ("torchattacks/di-fgsm",)),
    ("ti-fgsm", "linf", ("torchattacks/ti-fgsm",)),
    ("pgd", "linf", ("torchattacks/pgd", "torchattacks/upgd", "art/pgd", "art/pgd-pytorch")),
    ("pgd", "l2", ("torchattacks/pgd-l2", "art/pgd", "art/pgd-pytorch", "art/momentum-iterative")),
    ("apgd", "linf", ("torchattacks/apgd", "art/apgd")),
    ("apgd", "l2", ("torchattacks/apgd", "art/apgd")),
    ("sparse", "l0", ("art/saliency-map",)),
    ("ti-patch", "patch", ("art/adversarial-patch",)),
    ("worst-case", "linf", ("torchattacks/autoattack",)),
]
QUERY_PAIRS = [
    pytest.param("square", "linf", ("torchattacks/square", "art/square"), marks=SLOW),
    pytest.param("square", "l2", ("torchattacks/square",), marks=SLOW),
    ("spsa", "linf", ("torchattacks/spsa",)),
    ("one-pixel", "l0", ("torchattacks/one-pixel", "art/pixel")),
]


@functools.cache
def _compact() -> IQAModel:
    return models.create("compact").eval()


@functools.cache
def _photos() -> torch.Tensor:
    """Six photographs, 32 x 32 pixels from the middle of each."""
    photos = datasets.create("photos")
    rows = photos.rows()
    return torch.stack([photos.load(row).x[:, 40:72, 48:80] for row in rows[:: len(rows) // 6][:6]]).contiguous()


@functools.cache
def _moved(name: str, norm: str, queries: int | None, seeds: int) -> float:
    """Mean shift up plus mean shift down, over the photographs and the seeds."""
    budget = Budget(norm=norm, eps_255=EPS_255[norm], steps=10, queries=queries)
    attack, total = attacks.create(name), 0.0
    for seed in range(seeds):
        for goal, sign in (("up", 1), ("down", -1)):
            result = attack(_compact(), _photos(), goal=goal, budget=budget, seed=seed)
            total += sign * (result.score_adv - result.score_clean).mean().item() / seeds
    return total


@pytest.mark.parametrize("ours,norm,libraries", GRADIENT_PAIRS)
def test_with_gradients(ours: str, norm: str, libraries: tuple[str, ...]) -> None:
    queries = 100 if ours == "worst-case" else None
    for library in libraries:
        assert _moved(ours, norm, queries, 1) >= 0.98 * _moved(library, norm, queries, 1), library


@pytest.mark.parametrize("queries", [60, 100])
@pytest.mark.parametrize("ours,norm,libraries", QUERY_PAIRS)
def test_with_queries(ours: str, norm: str, libraries: tuple[str, ...], queries: int) -> None:
    for library in libraries:
        assert _moved(ours, norm, queries, 4) >= 0.98 * _moved(library, norm, queries, 4), library


@pytest.mark.parametrize("name", ["fgsm", "pgd", "torchattacks/pgd", "art/fgm"])
def test_a_larger_budget_is_no_weaker(name: str) -> None:
    reached = []
    for eps_255 in (1, 2, 4):
        result = attacks.create(name)(_compact(), _photos(), goal="away", budget=Budget(eps_255=eps_255))
        reached.append((result.score_adv - result.score_clean).abs().mean().item())
    assert reached[0] < reached[1] < reached[2]
