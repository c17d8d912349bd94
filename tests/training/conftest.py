"""A tiny dataset and recipes that train in a second."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCORE = """
name = "tiny"
task = "score"
about = "A test."
license = "MIT"
seed = {seed}
precision = "{precision}"

[network]
name = "compact"
params = {{ stem = 4, widths = [4, 8], hidden = 4, dropout = 0.5 }}

[data]
dataset = "csv"
params = {{ table = "{table}", mos_range = [0, 10] }}

[augment]
crop = 32
turn = true

[optimization]
epochs = 3
batch_size = 4
learning_rate = 1e-2
warmup = 0.1

[validation]
share = 0.3

[[loss]]
name = "mse"

[[loss]]
name = "norm-in-norm"
weight = 0.5
"""

TinyRecipe = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen train and four test pictures whose MOS is ten times their noise, with references."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mos", "split", "reference_id", "ref"])
        for number in range(20):
            clean = np.add.outer(np.arange(48), np.arange(40)) * 2.0
            noisy = clean + rng.normal(0, 1 + 2 * number, clean.shape)
            for name, values in ((f"{number}.png", noisy), (f"ref{number}.png", clean)):
                Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB").save(folder / name)
            split = "test" if number % 5 == 4 else "train"
            writer.writerow([f"{number}.png", 10 - number / 2, split, f"content{number}", f"ref{number}.png"])
    return folder / "labels.csv"


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_table: Path) -> TinyRecipe:
    """Write the tiny score recipe with other values; returns its path."""

    def write(
        text: str = SCORE, *, seed: int = 0, precision: str = "half", extra: str = "", choose: str | None = None
    ) -> Path:
        path = tmp_path / "tiny.toml"
        text = text.format(seed=seed, precision=precision, table=tiny_table.as_posix()) + extra
        if choose is not None:
            text = text.replace("[validation]", f'[validation]\nchoose = "{choose}"')
        path.write_text(text)
        return path

    return write
