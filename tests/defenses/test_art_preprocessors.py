"""Preprocessors of ART: the library called by hand, its randomness per image, and which of its classes are here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.defences import preprocessor

from iqa_robust import defenses
from iqa_robust.defenses.adapters import art
from iqa_robust.defenses.base import Purifier
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import seeded
from iqa_robust.testing.pictures import pictures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library_defenses.md"
NAMES = [name for name in defenses.names() if name.startswith("art/")]
PLAIN: list[tuple[str, dict[str, Any], Any]] = [
    ("art/feature-squeezing", {"bits": 3}, preprocessor.FeatureSqueezing((0.0, 1.0), 3)),
    (
        "art/jpeg-compression",
        {"quality": 30},
        preprocessor.JpegCompression((0.0, 1.0), quality=30, channels_first=True),
    ),
    ("art/spatial-smoothing", {"size": 5}, preprocessor.SpatialSmoothing(5, channels_first=True)),
]


@pytest.mark.parametrize(("name", "params", "library"), PLAIN)
def test_gives_what_the_library_gives(name: str, params: dict[str, Any], library: Any) -> None:
    x = pictures(3, 24, 30)
    found = defenses.create(name, **params).purify(x)  # type: ignore[attr-defined]
    expected, _ = library(x.numpy().copy())
    assert np.array_equal(found.numpy(), expected.astype(np.float32))


def test_total_variation_minimization_is_the_library_s_under_the_same_draws() -> None:
    x = pictures(1, 20, 26)
    with seeded([5]):
        found = art.TotalVarMin().purify(x)
    with seeded([5]):
        again = art.TotalVarMin().purify(x)
    with seeded([6]):
        other = art.TotalVarMin().purify(x)
    assert torch.equal(found, again)
    assert not torch.equal(found, other)

    def roughness(y: torch.Tensor) -> float:
        return float(y.diff(dim=2).abs().mean() + y.diff(dim=3).abs().mean())

    assert roughness(found) < roughness(x)


def test_gaussian_augmentation_is_noise_of_its_size() -> None:
    x = torch.full((2, 3, 50, 50), 0.5)
    with seeded([1, 2]):
        noise = art.GaussianAugmentation(sigma=0.04).purify(x) - x
    assert noise.std() == pytest.approx(0.04, rel=0.05)  # 15,000 values: a standard error of 0.6 %
    assert not torch.equal(noise[0], noise[1])


def test_leaves_numpy_s_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand(3)
    np.random.seed(3)
    art.TotalVarMin().purify(pictures(1, 8, 8))
    assert np.array_equal(np.random.rand(3), expected)


def test_every_class_of_the_library_is_on_the_page_here_or_left_out() -> None:
    """The library decides what there is: a class that a new version adds fails here."""
    text = PAGE.read_text("utf-8")
    here = dict(re.findall(r"^\| `(art/[\w-]+)` \| `(\w+)` \|", text, re.MULTILINE))
    assert here == {name: defenses.get(name).library_class for name in NAMES}  # type: ignore[attr-defined]
    cells = re.findall(r"^\| (`.+`) \|", text.partition("## Left out")[2], re.MULTILINE)
    left_out = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    classes = {
        name for name, cls in vars(preprocessor).items() if isinstance(cls, type) and name not in ("Preprocessor",)
    }
    assert classes == {*here.values(), *left_out}


@pytest.mark.parametrize("name", NAMES)
def test_is_a_purifier_with_its_source(name: str) -> None:
    cls = defenses.get(name)
    assert issubclass(cls, Purifier)
    assert cls.source


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^SpatialSmoothing: expected size to be odd, got 4\.$"):
        art.SpatialSmoothing(size=4)
    with pytest.raises(
        ContractError, match=r"^FeatureSqueezing: expected bits to be a whole number from 1 to 8, got 9"
    ):
        art.FeatureSqueezing(bits=9)
    with pytest.raises(
        ContractError, match=r"^TotalVarMin: expected keep to be a finite number > 0 and <= 1, got 0\.$"
    ):
        art.TotalVarMin(keep=0)
