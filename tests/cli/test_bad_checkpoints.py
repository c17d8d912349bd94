"""Checkpoints that a track may not load: one sentence, exit status 2, and no code of theirs run."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SMALL = "small.toml"


class _Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch PWNED",)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": _Evil()}))


CHECKPOINTS = {
    "that wants to run code": ("bad.pth", _pickle, "refused, because loading it could run code stored in it"),
    "that is text": (
        "bad.pth",
        lambda path: path.write_text("hello"),
        "bad.pth: expected a safetensors file (named *.safetensors) or one of torch.save, got something else",
    ),
    "that is empty": ("bad.pth", lambda path: path.touch(), "got an empty file; give a weight file."),
    "that is a folder": ("bad.pth", lambda path: path.mkdir(), "expected a file, got a folder"),
    "with a broken configuration": (
        "bad.safetensors",
        lambda path: save_file({"w": torch.zeros(1)}, path, metadata={"config": "{"}),
        "bad.safetensors: `config` in its header is not JSON",
    ),
    "with another configuration": (
        "bad.safetensors",
        lambda path: save_file({"w": torch.zeros(1)}, path, metadata={"config": "[]"}),
        "bad.safetensors: expected `config` in its header to be a JSON object",
    ),
    "that is truncated": (
        "bad.safetensors",
        lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{"),
        "not a safetensors file",
    ),
    "that is not there": ("bad.pth", lambda path: None, "no such file"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint(cli, tmp_path: Path, track_text: str, monkeypatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, sentence = CHECKPOINTS[case]
    write(tmp_path / name)
    path = tmp_path / SMALL
    path.write_text(track_text.replace('"ssim"', f'"compact"\nparams = {{ weights = "{tmp_path / name}" }}'))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = cli("run", path, "--out", tmp_path / "out")
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome.err
    assert not (tmp_path / "PWNED").exists()
