"""The speed comparison at equal strength: the least that ours needs, by the judge of all contenders."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def x(scripts: Any) -> torch.Tensor:
    return scripts.networks.pictures(2, 64)


def test_tenths_of_a_task(scripts: Any) -> None:
    task = scripts.task.Task("pgd", steps=10, queries=1000)
    assert [(task.tenths(count).steps, task.tenths(count).queries) for count in (1, 3, 10)] == [
        (1, 100),
        (3, 300),
        (10, 1000),
    ]
    assert scripts.task.Task("pgd", steps=4).tenths(3).steps == 2  # of 1.2


def test_the_least_reaches_the_aim_and_a_tenth_less_does_not(scripts: Any, x: torch.Tensor) -> None:
    model, task = scripts.networks.network("compact", 64), scripts.task.Task("pgd", steps=10)

    def shift(steps: int) -> float:
        attack = scripts.contenders.CONTENDERS["ours"].make(model, scripts.task.Task("pgd", steps=steps), x)
        return float(scripts.measure.shift(model, x, attack(x.clone()), task.eps))

    aim = shift(6)
    less = scripts.measure.least(model, x, task, aim)
    assert less.steps <= 6
    assert shift(less.steps) >= aim > shift(less.steps - 1)
    assert scripts.measure.least(model, x, task, math.inf) == task
    assert scripts.measure.least(model, x, scripts.task.Task("fgsm"), -math.inf).attack == "fgsm"


def test_lines_at_equal_strength(scripts: Any, x: torch.Tensor) -> None:
    model = scripts.networks.network("compact", 64)
    found = scripts.measure.lines("compact", model, x, scripts.task.Task("pgd", steps=10), 2, {})
    by_name = {line.contender: line for line in found}
    reached = max(by_name[name].shift for name in by_name if name in ("torchattacks", "ART", "Foolbox"))
    strong = by_name["ours, as strong"]
    assert strong.shift >= reached
    assert 1 <= int(strong.attack.removeprefix("PGD-")) < 10
    assert by_name["search alone, as strong"].attack == strong.attack
    assert by_name["ours"].attack == "PGD-10"
    assert math.isnan(by_name["passes alone"].shift)
    assert {line.attack for line in found} == {"PGD-10", strong.attack}


@pytest.mark.parametrize("library", ["torchattacks", "ART", "Foolbox"])
def test_libraries_leave_the_network_as_it_was(scripts: Any, x: torch.Tensor, library: str) -> None:
    # In training mode, batch norm would score by the batch, and remember it: another network for whoever comes next.
    contender = scripts.contenders.CONTENDERS[library]
    if not contender.installed:
        pytest.skip(f"needs {library}")
    model = scripts.networks.network("resnet18", 64)
    before = model(x)
    contender.make(model, scripts.task.Task("fgsm"), x)(x.clone())
    assert not any(module.training for module in model.modules())
    assert torch.equal(model(x), before)
