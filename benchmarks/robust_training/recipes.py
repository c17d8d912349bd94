"""Recipes of the comparison: one per method, database and seed, all with the same number of optimizer steps."""

from __future__ import annotations

import json
from typing import Any

from methods import START, Method

DATABASES: dict[str, dict[str, Any]] = {
    "clive": {"params": {"allow_missing": True}, "epochs": 8, "validation": {"share": 0.1, "crop": 224}},
    "biq2021": {"params": {"allow_missing": True}, "epochs": 3, "validation": {"share": 0.1, "crop": 224}},
    "photos": {"params": {"limit": 1200}, "epochs": 3, "validation": {"share": 0.1}},
    "live": {"params": {"allow_missing": True, "split_seed": 3}, "epochs": 60, "validation": {}},
}
"""Epochs of about 230 steps of 16 images in all."""
LICENSES = {
    "clive": "trunk weights: MIT; trained on CLIVE, whose terms ask for the notice and citation of its authors",
    "biq2021": "trunk weights: MIT; trained on BIQ2021, see its terms",
    "photos": "MIT; trained on the photographs of `photos` (public domain, CC0, CC BY 2.0)",
    "live": "trunk weights: MIT; trained on LIVE release 2, whose terms ask for the notice and citation of its authors",
}


def recipe(name: str, method: Method, database: str, seed: int) -> str:
    """The recipe as TOML, by the name `name`."""
    data = DATABASES[database]
    network = {"backbone": "squeezenet1_1", "normalization": "caffe-bgr", "dropout": 0.2, **method.params}
    sections: dict[str, Any] = {
        "network": {"name": "trunk-regressor", "params": network},
        "start": START,
        "data": {"dataset": database, "params": data["params"]},
        "augment": {"crop": 160},
        "optimization": {
            "epochs": data["epochs"],
            "batch_size": 16,
            "learning_rate": 5e-4,
            "weight_decay": 1e-2,
            "warmup": 0.05,
            "arithmetic": "bf16",
        },
        "validation": data["validation"],
        **({"inner": method.inner} if method.inner else {}),
        **method.more,
    }
    lines = [
        f"name = {_value(name)}",
        'task = "score"',
        f"about = {_value(f'{method.about[0].upper()}{method.about[1:]}; SqueezeNet-1.1 trunk on {database}.')}",
        f"license = {_value(LICENSES[database])}",
        f"seed = {seed}",
        "keep_in_memory = true",
    ]
    for title, section in sections.items():
        lines += ["", f"[{title}]", *(f"{key} = {_value(value)}" for key, value in section.items())]
    for term in method.loss:
        lines += ["", "[[loss]]", *(f"{key} = {_value(value)}" for key, value in term.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """TOML of JSON values; tables are written inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
