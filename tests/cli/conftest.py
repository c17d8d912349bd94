"""The command line in process, and a small folder of real images to run it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from iqa_robust import datasets
from iqa_robust.images import to_uint8

Cli = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status and output."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call `iqa-robust` with arguments, in this process."""
    from iqa_robust.cli.main import main

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["iqa-robust", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        status = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six 64x64 photographs with references and a table, as the `csv` dataset takes them."""
    root = tmp_path_factory.mktemp("small-set")
    (root / "images").mkdir()
    rows = []
    for item in datasets.create("photos", limit=6, crop=64):
        assert item.ref is not None
        for kind, x in (("x", item.x), ("ref", item.ref)):
            pixels = to_uint8(x).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / "images" / f"{item.image_id}_{kind}.png")
        rows.append(
            {
                "image": f"images/{item.image_id}_x.png",
                "mos": item.mos,
                "ref": f"images/{item.image_id}_ref.png",
                "reference_id": item.reference_id,
            }
        )
    pd.DataFrame(rows).to_csv(root / "table.csv", index=False)
    return root


TRACK = """name = "small"
version = 1
title = "A small track"
batch_size = 2

[dataset]
name = "csv"
params = {{ root = {root!r}, table = {table!r}, split = "all", mos_range = [0.0, 100.0] }}

[[models]]
name = "ssim"
score_range = [0.0, 1.0]

[[defenses]]
name = "none"

[[defenses]]
name = "gaussian"

[[attacks]]
name = "noise"

[[attacks]]
name = "fgsm"
eps_255 = [1, 2]
"""


@pytest.fixture
def track_text(small_set: Path) -> str:
    """A track on the small set: one full-reference model, one defense, the control and one attack."""
    return TRACK.format(root=str(small_set), table=str(small_set / "table.csv"))


@pytest.fixture
def track(tmp_path: Path, track_text: str) -> Path:
    """The track as a file."""
    path = tmp_path / "small.toml"
    path.write_text(track_text)
    return path
