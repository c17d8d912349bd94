"""Training end to end on a tiny dataset: resumption, determinism, checkpoints and cards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from iqa_robust import models
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.checkpoints import load
from iqa_robust.testing.pretended_gpu import pretended_gpu
from iqa_robust.training import loop, train
from iqa_robust.training.progress import Progress

KILLED = """
import os, signal, sys
from pathlib import Path
from iqa_robust.training import train

def die(progress):
    if progress.stage == "train" and progress.epoch == 3 and progress.done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[1], out=Path(sys.argv[2]), progress=die)
"""


class StoppedError(Exception):
    """Stands for anything that ends a training early."""


def stop_in_epoch(epoch: int, batch: int = 1):
    def listen(progress: Progress) -> None:
        if (progress.stage, progress.epoch, progress.done) == ("train", epoch, batch):
            raise StoppedError

    return listen


def same_tensors(a: Path, b: Path) -> bool:
    first, second = load(a).tensors, load(b).tensors
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def whole(tiny_recipe, tmp_path: Path) -> Path:
    return train(tiny_recipe(), out=tmp_path / "whole.safetensors")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_interrupted_training_ends_in_the_same_weights(tiny_recipe, tmp_path: Path, whole: Path, epoch: int) -> None:
    out = tmp_path / "cut.safetensors"
    with pytest.raises(StoppedError):
        train(tiny_recipe(), out=out, progress=stop_in_epoch(epoch, batch=2))
    assert not out.exists()
    assert out.with_suffix(".resume.pt").exists() == (epoch > 1)
    seen: list[int] = []
    train(tiny_recipe(), out=out, progress=lambda p: seen.append(p.epoch) if p.stage == "train" else None)
    assert seen[0] == epoch  # finished epochs are not trained again
    assert same_tensors(out, whole)
    assert not out.with_suffix(".resume.pt").exists()


def test_training_on_a_gpu_ends_in_the_same_weights(
    tiny_recipe, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pretended one, whose numbers are the CPU's; interrupted, so that its state was kept and read there."""
    out = tmp_path / "gpu.safetensors"
    seen: set[str] = set()
    write_state = loop._write_state

    def kept(path: Path, state: dict[str, Any]) -> None:
        seen.update(weight.device.type for weight in state["network"].values())
        write_state(path, state)

    monkeypatch.setattr(loop, "_write_state", kept)
    with pretended_gpu():
        with pytest.raises(StoppedError):
            train(tiny_recipe(), out=out, progress=stop_in_epoch(2, batch=2))
        train(tiny_recipe(), out=out)
    assert same_tensors(out, whole) and seen == {"cuda"}


def test_killed_training_ends_in_the_same_weights(tiny_recipe, tmp_path: Path, whole: Path) -> None:
    recipe, out = tiny_recipe(), tmp_path / "killed.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, str(recipe), str(out)], capture_output=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert out.with_suffix(".resume.pt").exists()
    train(recipe, out=out)
    # the child may have run with another number of threads than this process, so equality is up to rounding
    for key, value in load(whole).tensors.items():
        torch.testing.assert_close(load(out).tensors[key], value, rtol=1e-2, atol=1e-3)


def test_a_seed_changes_the_weights(tiny_recipe, tmp_path: Path, whole: Path) -> None:
    other = train(tiny_recipe(seed=1), out=tmp_path / "other.safetensors")
    assert not same_tensors(whole, other)


def test_global_random_state_is_neither_used_nor_changed(tiny_recipe, tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train(tiny_recipe(), out=tmp_path / "again.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert same_tensors(whole, again)


def test_finished_training_is_not_repeated(tiny_recipe, whole: Path) -> None:
    def fail(progress: Progress) -> None:
        raise AssertionError("nothing is left to do")

    before = whole.stat().st_mtime_ns
    assert train(tiny_recipe(), out=whole, progress=fail) == whole
    assert whole.stat().st_mtime_ns == before


def test_another_recipes_file_is_not_overwritten(tiny_recipe, whole: Path) -> None:
    with pytest.raises(RequestError, match="not made by this recipe"):
        train(tiny_recipe(seed=1), out=whole)


def test_state_of_another_recipe_is_refused(tiny_recipe, tmp_path: Path) -> None:
    out = tmp_path / "cut.safetensors"
    with pytest.raises(StoppedError):
        train(tiny_recipe(), out=out, progress=stop_in_epoch(2))
    with pytest.raises(CheckpointError, match="belongs to another recipe"):
        train(tiny_recipe(seed=1), out=out)


def test_broken_state_is_refused(tiny_recipe, tmp_path: Path) -> None:
    out = tmp_path / "cut.safetensors"
    out.with_suffix(".resume.pt").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="delete it"):
        train(tiny_recipe(), out=out)


def test_out_must_be_safetensors(tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\.safetensors"):
        train(tiny_recipe(), out=tmp_path / "weights.pth")


def test_result_is_a_model_that_knows_itself(whole: Path) -> None:
    model = models.create("compact", weights=str(whole))
    info = model.info
    assert info.score_range == (0.0, 10.0)
    assert info.training_datasets == ("csv:train",)
    assert info.weights_license == "MIT"
    assert info.weights_sha256 == load(whole).sha256
    scores = model(torch.rand(2, 3, 40, 40))
    assert bool(((scores > 0) & (scores < 10)).all())


def test_card_states_data_recipe_and_results(whole: Path) -> None:
    card = whole.with_suffix(".md").read_text()
    config = load(whole).config
    for fact in (config["recipe_digest"], load(whole).sha256, "| test | srocc |", "| validation | plcc |", "MIT"):
        assert fact in card
    assert "`csv:train`: manifest `" in card
    assert "| train | 11 |" in card  # 16 training images, 30 percent of them (5) held out
    assert "| test | 4 |" in card


def test_half_precision_halves_the_file(tiny_recipe, tmp_path: Path, whole: Path) -> None:
    single = train(tiny_recipe(precision="single"), out=tmp_path / "single.safetensors")
    assert single.stat().st_size > whole.stat().st_size
    for key, value in load(single).tensors.items():  # half precision keeps 11 bits
        torch.testing.assert_close(load(whole).tensors[key], value, rtol=2**-11, atol=1e-6)


def test_progress_tells_rate_time_and_validation(tiny_recipe, tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tiny_recipe(), out=tmp_path / "seen.safetensors", progress=seen.append)
    batches = [p for p in seen if p.stage == "train"]
    assert [(p.epoch, p.done) for p in batches] == [(e, b) for e in (1, 2, 3) for b in (1, 2, 3)]
    assert all(p.total == 3 and p.epochs == 3 and p.rate > 0 and p.seconds_left >= 0 for p in batches)
    assert not batches[0].validation
    assert set(batches[-1].validation) == {"loss", "srocc", "plcc"}
    assert {p.stage for p in seen} == {"train", "validate", "test", "attack"}
