"""What is trained on: per database, what all methods have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Section = dict[str, Any]


@dataclass(frozen=True)
class Database:
    """The network, the data and the budget of one comparison. Epochs make about 230 steps unless said otherwise."""

    dataset: str
    about: str
    """Ends the sentence on a method: what learns on which images."""
    license: str
    score_range: tuple[float, float]
    params: Section
    """Of the dataset."""
    epochs: int
    validation: Section
    network: str = "trunk-regressor"
    network_params: Section = field(
        default_factory=lambda: {"backbone": "squeezenet1_1", "normalization": "caffe-bgr", "dropout": 0.2}
    )
    start: Section = field(
        default_factory=lambda: {
            "trunk": "weights/squeezenet1_1_features_imagenet_caffe.safetensors",
            "head": "ridge",
        }
    )
    """For trunks: their weights, relative to the data root, and ridge regression for the head."""
    pristine: tuple[Section, ...] = ()
    augment: Section = field(default_factory=lambda: {"crop": 160})
    batch_size: int = 16
    learning_rate: float = 5e-4
    judged: Section = field(default_factory=lambda: {"crop": 224, "allow_missing": True, "limit": 24})
    """Parameters of the dataset for the test split."""


PRETRAINING = "pretraining"
"""Folder of what methods with a pre-training start from."""

_TERMS_OF = "trunk weights: MIT; trained on {}, whose terms ask for the notice and citation of its authors"
_PHOTOS = "MIT; trained on the photographs of `photos` (public domain, CC0, CC BY 2.0)"

DATABASES: dict[str, Database] = {
    "clive": Database(
        "clive",
        "SqueezeNet-1.1 trunk on clive",
        _TERMS_OF.format("CLIVE"),
        (0.0, 100.0),
        {"allow_missing": True},
        8,
        {"share": 0.1, "crop": 224},
    ),
    "biq2021": Database(
        "biq2021",
        "SqueezeNet-1.1 trunk on biq2021",
        "trunk weights: MIT; trained on BIQ2021, see its terms",
        (0.0, 1.0),
        {"allow_missing": True},
        3,
        {"share": 0.1, "crop": 224},
    ),
    "photos": Database(
        "photos",
        "SqueezeNet-1.1 trunk on photos",
        _PHOTOS,
        (0.0, 100.0),
        {"limit": 1200},
        3,
        {"share": 0.1},
        judged={"limit": 24},
    ),
    "live": Database(
        "live",
        "SqueezeNet-1.1 trunk on live",
        _TERMS_OF.format("LIVE release 2"),
        (0.0, 100.0),
        {"allow_missing": True, "split_seed": 3},
        60,
        {},
        judged={"crop": 224, "allow_missing": True, "split_seed": 3, "limit": 24},
    ),
    "compact": Database(
        "photos",
        "the published `compact`, trained further on photos and their kin",
        f"{_PHOTOS}, on the Kodak pictures, and on images of BIQ2021",
        (0.0, 100.0),
        {},
        6,
        {"contents": ["hopper-*", "kodim04", "kodim13", "kodim19"]},
        network="compact",
        network_params={"stem": 16, "widths": [32, 64, 128, 256], "hidden": 96, "dropout": 0.2},
        start={"weights": "photos"},
        pristine=(
            {"folder": "kodak24", "crop": 192, "per_crop": 16},
            {"dataset": "biq2021", "pictures": 400, "shrink": 2, "crop": 192, "per_crop": 4},
        ),
        augment={"crop": 128, "flip": True, "turn": True, "colors": True},
        batch_size=32,
        learning_rate=1e-3,
        judged={"limit": 24},
    ),
}
"""By name, in the order of the comparison. `compact` makes the networks that ship with the package."""

DEGRADED = Database(
    "photos",
    "SqueezeNet-1.1 trunk on degraded photographs, before a database",
    f"{_PHOTOS} and on the Kodak pictures",
    (0.0, 100.0),
    {},
    2,
    {"contents": ["hopper-*", "kodim04", "kodim13", "kodim19"]},
    pristine=({"folder": "kodak24", "crop": 192, "per_crop": 16},),
    judged={"limit": 24},
)
"""What methods with a pre-training see before their database, in some 500 steps.

No image of CLIVE, BIQ2021 or LIVE. It has the training images of `photos`, so validation figures there, and the epoch
that they choose, are no longer independent of it; test images are.
"""
