"""The arithmetic of a run: what is asked for, what is measured, and that one run has one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import iqa_robust as ir
from iqa_robust import models
from iqa_robust.errors import ContractError
from iqa_robust.harness import choices, precision
from iqa_robust.harness.choices import Choices
from iqa_robust.harness.executors.base import Silent
from iqa_robust.harness.plan import Selection, make_plan
from iqa_robust.harness.precision import Precision, decide
from iqa_robust.harness.store import Store
from iqa_robust.harness.strength import Share, Trial
from iqa_robust.harness.system import Batch
from iqa_robust.harness.track import load_track
from iqa_robust.harness.tracks_folder import find_track

CPU = torch.device("cpu")


def _batch(n: int = 2, side: int = 48) -> Batch:
    x = torch.round(torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 255) / 255
    return Batch(tuple(map(str, range(n))), (None,) * n, x, None, torch.zeros(n, dtype=torch.float64))


class Fine(nn.Module):
    """Its score hangs on differences that bfloat16 rounds away: two large sums, one less the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.second(1000 + self.layer(x))
        return torch.tanh(1e3 * (hidden - hidden.roll(1, dims=-1)).float()).mean(dim=(1, 2, 3))


def test_an_asked_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "decide", _never)
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=2))
    choices = Choices("bf16", plan, CPU, Store(tmp_path), Silent())
    chosen, _ = choices.of(plan.cells[0])
    assert chosen.of("white") == chosen.of("black") == "bf16"


def test_a_run_that_is_taken_up_again_keeps_its_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=2))
    measured = Precision("bf16", "fp32", "measured")
    monkeypatch.setattr(precision, "decide", lambda model, batch: measured)
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])[0] == measured
    monkeypatch.setattr(precision, "decide", _never)
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])[0] == measured


def test_a_broken_note_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=2))
    monkeypatch.setattr(precision, "decide", lambda model, batch: Precision("bf16"))
    Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])
    (note,) = (tmp_path / "precision").iterdir()
    note.write_text("{")
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])[0] == Precision("bf16")


@pytest.mark.parametrize("fits", [1, 3, 8, 11])
def test_what_is_measured_is_a_batch_as_the_jobs_take_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fits: int
) -> None:
    measured: list[int] = []

    def note(model: object, batch: Batch) -> Precision:
        measured.append(len(batch.ids))
        return Precision()

    monkeypatch.setattr(precision, "decide", note)
    monkeypatch.setattr(choices, "images_at_once", lambda *_, **__: fits)
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=12))
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0]) == (Precision(), fits)
    assert measured == [fits]


def test_other_weights_at_the_same_path_are_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=2))
    monkeypatch.setattr(precision, "decide", lambda model, batch: Precision("bf16"))
    Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])
    monkeypatch.setattr(precision, "decide", lambda model, batch: Precision("fp32"))
    other = dataclasses.replace(plan.cells[0], weights_sha256="0" * 64)
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(other)[0] == Precision("fp32")


def test_memory_that_runs_out_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(load_track(find_track("quickstart")), selection=Selection(limit=8))
    tried: list[int] = []

    def hold(most: int) -> None:
        def decide(model: object, batch: Batch) -> Precision:
            tried.append(len(batch.ids))
            if len(batch.ids) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return Precision("bf16")

        monkeypatch.setattr(precision, "decide", decide)

    hold(0)
    chosen, _ = Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])
    assert chosen == Precision(reason="there is too little memory to measure bf16")
    assert not list(tmp_path.rglob("*.note"))
    hold(2)
    assert Choices("auto", plan, CPU, Store(tmp_path), Silent()).of(plan.cells[0])[0] == Precision("bf16")
    assert tried == [8, 4, 2, 1, 8, 4, 2]
    assert len(list(tmp_path.rglob("*.note"))) == 1


@pytest.mark.parametrize(
    ("rounding", "of_changes", "wanted"), [(1.0, 0.0, "bf16"), (0.0, 0.03, "mixed"), (0.0, 0.0, "fp32")]
)
def test_changes_alone_are_rounded_where_scores_cannot_be(
    monkeypatch: pytest.MonkeyPatch, rounding: float, of_changes: float, wanted: str
) -> None:
    _bf16_pays(monkeypatch)
    monkeypatch.setattr(Trial, "search", lambda trial, norm: Share(1.0, 0.0, 1.0))
    monkeypatch.setattr(precision, "ROUNDING", rounding)
    monkeypatch.setattr(precision, "ROUNDING_OF_CHANGES", of_changes)
    chosen = decide(models.create("compact"), _batch(side=96))
    assert chosen.queries == wanted
    assert ("where changes alone are rounded" in chosen.reason) == (rounding == 0)


@pytest.mark.parametrize(
    ("lost", "wanted"),
    [
        (set(), ("bf16", "bf16")),
        ({"climb"}, ("fp32", "bf16")),
        ({"step"}, ("fp32", "bf16")),
        ({"psnr"}, ("bf16", "mixed")),
        ({"linf"}, ("bf16", "fp32")),
    ],
)
def test_what_falls_short_is_searched_in_float32_and_said(
    monkeypatch: pytest.MonkeyPatch, lost: set[str], wanted: tuple[str, str]
) -> None:
    def share(kind: str) -> Share:
        return Share(0.95, 0.01, 0.95) if kind in lost else Share(1.0, 0.0, 1.0)

    _bf16_pays(monkeypatch)
    monkeypatch.setattr(precision, "ROUNDING", 1.0)
    monkeypatch.setattr(Trial, "climb", lambda trial: share("climb"))
    monkeypatch.setattr(Trial, "step", lambda trial: share("step"))
    monkeypatch.setattr(Trial, "search", lambda trial, norm: share(norm))
    chosen = decide(models.create("compact"), _batch())
    assert (chosen.gradients, chosen.queries) == wanted
    assert ("which is not enough" in chosen.summary) == ("0.950 +- 0.010" in chosen.summary) == bool(lost)


def test_strength_is_not_tried_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda work, device: 1.0)
    for name in ("climb", "step", "search"):
        monkeypatch.setattr(Trial, name, _never)
    chosen = decide(models.create("compact"), _batch())
    assert chosen == Precision(
        reason="bf16 takes gradients at 1.00 and scores at 1.00 times the speed of fp32 (on 2 images of 48 x 48)"
    )


def test_a_model_that_cannot_score_changes_is_searched_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _bf16_pays(monkeypatch)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(0))
    monkeypatch.setattr(precision, "ROUNDING", 0.0)
    chosen = decide(models.wrap(net), _batch())
    assert chosen.queries == "fp32"
    assert "changes alone" not in chosen.reason


def _bf16_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take a second in float32 and half of that in bfloat16, whatever the machine."""
    seconds = iter([1.0, 0.5, 1.0, 0.5])
    monkeypatch.setattr(precision, "_seconds", lambda work, device: next(seconds))


def test_a_lack_of_memory_is_not_taken_for_a_lack_of_bfloat16() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        decide(models.wrap(Large()), _batch())


def test_a_model_that_fails_in_bfloat16_is_attacked_in_float32() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.layer(x)
            if hidden.dtype is not torch.float32:
                raise RuntimeError("not implemented for 'BFloat16'")
            return hidden.mean(dim=(1, 2, 3))

    chosen = decide(models.wrap(Stubborn()), _batch())
    assert (chosen.gradients, chosen.queries) == ("fp32", "fp32")
    assert "not implemented for 'BFloat16'" in chosen.reason


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_model_that_always_fails_does_not_end_the_run_before_its_cells(error: type[Exception]) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error("out of order")

    assert decide(models.wrap(Broken()), _batch()) == Precision(reason="bf16 fails (out of order)")


def test_a_model_that_rounding_would_protect_is_attacked_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "WORTH", 0.0)
    monkeypatch.setattr(precision, "PAYS", 0.0)  # speed must not be what decides
    chosen = decide(models.wrap(Fine().eval()), _batch())
    assert (chosen.gradients, chosen.queries) == ("fp32", "fp32")


def test_a_robustly_rounded_model_may_be_attacked_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 0.5, 1.0, 1.0])  # of gradients and of scores, which are not what is asked for
    monkeypatch.setattr(precision, "_seconds", lambda work, device: next(seconds))
    assert decide(models.create("compact"), _batch(4, 96)).gradients == "bf16"


def _never(*given: object) -> Precision:
    raise AssertionError("measured")


def test_evaluate_searches_in_the_asked_precision_and_scores_in_float32() -> None:
    exact, rounded = (
        ir.evaluate("compact", ir.datasets.create("photos", limit=2), "fgsm", precision=name)
        for name in ("fp32", "bf16")
    )
    assert (exact.record.environment["precision"], rounded.record.environment["precision"]) == ("fp32", "bf16")
    assert exact.images["score_clean"].tolist() == rounded.images["score_clean"].tolist()
    assert exact.measures()["shift_abs_mean"] == pytest.approx(rounded.measures()["shift_abs_mean"], rel=0.1)


def test_evaluate_refuses_an_unknown_precision() -> None:
    with pytest.raises(ContractError, match=r"^precision: expected one of auto, fp32, mixed, bf16, got 'fp8'\.$"):
        ir.evaluate("compact", ir.datasets.create("photos", limit=1), "fgsm", precision="fp8")
