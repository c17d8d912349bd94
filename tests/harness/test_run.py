"""A run as a whole: what its driver sets and measures before workers begin, and what it makes of what they left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from iqa_robust.harness import choices, estimate, run
from iqa_robust.harness.plan import Plan, Selection, make_plan
from iqa_robust.harness.track import load_track
from iqa_robust.harness.tracks_folder import find_track


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_track(find_track("quickstart")), selection=Selection(limit=2))


@pytest.fixture
def shortcuts() -> Iterator[None]:
    """A process in which a GPU may round to TF32, as torch leaves it."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.synchronize", waited.append)
    for kind in ("cuda", "cpu"):
        assert estimate._now(torch.device(kind)) > 0
    assert waited == [torch.device("cuda")]


class MeasuredError(Exception):
    """Ends a run as soon as it measures."""


def _measure(*_: object, **__: object) -> None:
    raise MeasuredError((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))


@pytest.mark.usefixtures("shortcuts")
def test_a_driver_measures_in_plain_float32(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "make_model", _measure)
    with pytest.raises(MeasuredError) as caught:
        run.run(plan, tmp_path, device="cpu")
    assert caught.value.args == ((False, False),)


@pytest.mark.usefixtures("shortcuts")
def test_an_estimate_is_timed_in_plain_float32(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "make_model", _measure)
    with pytest.raises(MeasuredError) as caught:
        estimate.estimate(plan, "cpu")
    assert caught.value.args == ((False, False),)
