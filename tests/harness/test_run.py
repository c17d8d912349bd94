"""A run as a whole: what its driver sets and measures before workers begin, and what it makes of what they left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from iqa_robust import models
from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import StorageError
from iqa_robust.harness import choices, estimate, run
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.processes import Processes
from iqa_robust.harness.plan import Plan, Selection, make_plan
from iqa_robust.harness.shard import Shard
from iqa_robust.harness.track import load_track
from iqa_robust.harness.tracks_folder import find_track
from iqa_robust.models.base import IQAModel


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


class Elsewhere:
    """An executor whose workers write to another folder."""

    workers = 1

    def __init__(self) -> None:
        self.requests: list[JobRequest] = []

    def run(self, requests: Sequence[JobRequest], dataset: Dataset, listener: Listener) -> None:
        self.requests += requests


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_records_that_are_not_there_are_an_error(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: Shard | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choices, "make_model", _small)
    executor = Elsewhere()
    with pytest.raises(StorageError) as caught:
        run.run(plan, Path("out"), device="cpu", precision="fp32", executor=executor, shard=shard)
    cells = sum(len(request.specs) for request in executor.requests)
    assert cells == len(plan.cells) if shard is None else 0 < cells < len(plan.cells)
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: {cells} of {cells} cells have no record here though they were run: the workers wrote"
        " elsewhere, or somebody removed them; give an --out that all machines reach, and the same command again."
    )
    assert {request.out for request in executor.requests} == {tmp_path / "out"}


def _small(*_: object) -> IQAModel:
    return models.wrap(lambda x: x.mean(dim=(1, 2, 3)))


def test_a_batch_leaves_memory_to_the_other_workers(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def images_at_once(*_: object, workers: int) -> int:
        told.append(workers)
        raise MeasuredError

    monkeypatch.setattr(choices, "make_model", _small)
    monkeypatch.setattr(choices, "images_at_once", images_at_once)
    for executor in (None, Processes(3, 1)):
        with pytest.raises(MeasuredError):
            run.run(plan, tmp_path, device="cpu", executor=executor)
    assert told == [1, 3]


def test_parts_that_outlived_their_record_go(tmp_path: Path) -> None:
    """A run that was killed between the two leaves both; the next one makes nothing of the parts."""
    track = load_track(find_track("quickstart"))
    bare = make_plan(track, selection=Selection(limit=2, defenses=["none"], attacks=["noise"]))
    (record,) = run.run(bare, tmp_path, device="cpu", precision="fp32")
    left = tmp_path / "runs" / f"{record.digest}.parts"
    left.mkdir()
    (left / "batch.parquet").write_bytes(b"of the killed run")
    run.run(bare, tmp_path, device="cpu", precision="fp32")
    assert not left.exists() and len(list((tmp_path / "runs").glob("*.json"))) == 1
