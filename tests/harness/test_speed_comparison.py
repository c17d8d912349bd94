"""The speed comparison runs, and compares attacks that do the same; what it measures is asserted nowhere."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch


def test_contenders_reach_the_same(scripts: Any, tmp_path: Path) -> None:
    command = "--models compact --quick --images 3 --side 64 --eps-255 2 --repeats 1"
    scripts.compare.main([*command.split(), "--overhead-images", "2", "--threads", "1", "--out", str(tmp_path)])
    with (tmp_path / "speed.csv").open() as file:
        lines = list(csv.DictReader(file))
    shifts: dict[str, dict[str, float]] = {}
    for line in lines:
        assert float(line["seconds"]) > 0
        if line["contender"] == "passes alone":
            assert line["shift"] == ""
        elif not line["contender"].endswith("as strong"):  # those have tests of their own
            shifts.setdefault(line["attack"], {})[line["contender"]] = float(line["shift"])
    everyone = {"ours", "search alone", "ours, unprepared", "torchattacks", "ART"}
    everyone |= {"Foolbox"} if find_spec("foolbox") else set()
    assert {attack: set(found) for attack, found in shifts.items()} == {
        "FGSM": everyone,
        "PGD-10": everyone,
        "APGD-10": everyone - {"Foolbox"},
        "Square-100": everyone - {"Foolbox"},
    }
    for attack, found in shifts.items():
        for contender, shift in found.items():
            # Random searches differ by their draws, on three images by up to two thirds; climbs by their step rules.
            part = 0.4 if attack.startswith("Square") else 0.8
            assert part * found["ours"] <= shift <= found["ours"] / part, (attack, contender, found)
    page = (tmp_path / "speed.md").read_text()
    assert "compact: harness overhead " in page
    assert page.count("\n| compact | ") == len(lines)


def test_they_take_turns_and_the_fastest_run_counts(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] / 2)

    def runner(name: str, lasting: list[float]) -> Any:
        def run() -> torch.Tensor:
            order.append(name)
            clock[0] += lasting.pop(0)
            return torch.tensor(len(lasting))

        return run

    runs = {"a": runner("a", [3.0, 1.0, 2.0]), "b": runner("b", [5.0, 6.0, 4.0]), "c": runner("c", [7.0, 7.0, 7.0])}
    seconds, found = scripts.measure.alternate(runs, 3)
    assert "".join(order) == "abcbcacab"
    assert seconds == {"a": (1.0, 0.5), "b": (4.0, 2.0), "c": (7.0, 3.5)}
    assert {name: int(value) for name, value in found.items()} == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_random_networks_have_scores_that_move(scripts: Any, name: str) -> None:
    x = scripts.networks.pictures(4, 64)
    model = scripts.networks.network(name, 64)
    low, high = model.info.score_range
    leaf = x.clone().requires_grad_(True)
    scores = model(leaf)
    slope = torch.autograd.grad(scores.sum(), leaf)[0]
    assert scores.std() > 0
    assert low + 10 < scores.min() <= scores.max() < high - 10  # far from the ends, where slopes vanish
    assert (slope != 0).flatten(1).any(dim=1).all()
    again = scripts.networks.network(name, 64)
    assert torch.equal(again(x), model(x))


def test_the_two_logits_have_the_slope_of_the_score(scripts: Any) -> None:
    x = scripts.networks.pictures(2, 64)
    model = scripts.networks.network("compact", 64)

    def slope(loss: Any) -> torch.Tensor:
        leaf = x.clone().requires_grad_(True)
        return torch.autograd.grad(loss(leaf), leaf)[0]

    view = scripts.task.TwoLogits(model)
    of_loss = slope(lambda z: torch.nn.functional.cross_entropy(view(z), torch.zeros(2, dtype=torch.int64)))
    of_score = slope(lambda z: model(z).sum())
    scale = (of_loss * of_score).flatten(1).sum(dim=1) / of_score.square().flatten(1).sum(dim=1)
    assert bool((scale > 0).all())
    # float32: the chain through the softmax rounds once more.
    assert torch.allclose(
        of_loss, scale.view(-1, 1, 1, 1) * of_score, rtol=1e-3, atol=1e-6 * float(of_loss.abs().max())
    )
    assert bool((view(x).argmax(dim=1) == 0).all())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
def test_memory_is_that_of_the_attack(scripts: Any) -> None:
    task = scripts.task.Task("fgsm")
    few, many = (scripts.measure.peak_memory("torchattacks", "compact", task, n, 128, 1) for n in (1, 32))
    images = 32 * 3 * 128 * 128 * 4 / 2**20
    assert many > few + images  # the gradient alone is as large as the images


def test_memory_of_a_cell_is_measured_in_a_process_of_its_own(scripts: Any) -> None:
    (found,) = scripts.memory.peaks([3], 32, "fgsm")
    assert found > 100  # MiB: less than the libraries alone


def test_startup_times_every_command(scripts: Any) -> None:
    seconds = scripts.startup.startup(1)
    assert set(seconds) == {"bare interpreter", "list", "--help"}
    assert all(value > 0 for value in seconds.values())
