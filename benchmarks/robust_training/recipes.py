"""Recipes of the comparison: one per method, database and seed, all with as many steps after a pre-training, if any."""

from __future__ import annotations

import json
from typing import Any

from databases import DEGRADED, PRETRAINING, Database, Section
from methods import EPS_255, Method


def recipe(name: str, method: Method, data: Database, seed: int) -> str:
    """The recipe as TOML, by the name `name`; the weights of a pre-training are looked for below the current folder."""
    sections: dict[str, Section] = {
        "network": {"name": data.network, "params": {**data.network_params, **method.params}},
        "start": _start(data, method, seed),
        "data": {"dataset": data.dataset, "params": data.params},
        "augment": data.augment,
        "optimization": {
            "epochs": _epochs(data, method),
            "batch_size": data.batch_size,
            "learning_rate": data.learning_rate,
            "weight_decay": 1e-2,
            "warmup": 0.05,
            "arithmetic": method.arithmetic,
        },
        "validation": _validation(data, method),
        **({"inner": method.inner} if method.inner else {}),
        **method.more,
    }
    lines = [
        f"name = {toml_value(name)}",
        'task = "score"',
        f"about = {toml_value(f'{method.about[0].upper()}{method.about[1:]}; {data.about}.')}",
        f"license = {toml_value(_license(data, method))}",
        f"seed = {seed}",
        "keep_in_memory = true",
    ]
    for title, section in sections.items():
        lines += ["", f"[{title}]", *(f"{key} = {toml_value(value)}" for key, value in section.items())]
    for title, entries in (("pristine", data.pristine), ("loss", method.loss)):
        for entry in entries:
            lines += ["", f"[[{title}]]", *(f"{key} = {toml_value(value)}" for key, value in entry.items())]
    return "\n".join(lines) + "\n"


def pretrained(method: Method, seed: int) -> str:
    """The checkpoint that a method with a pre-training starts from, relative to the folder of the experiment."""
    return f"{PRETRAINING}/{method.pretrained}-seed{seed}.safetensors"


def _license(data: Database, method: Method) -> str:
    return data.license if method.pretrained is None else f"{data.license}; pre-trained weights: {DEGRADED.license}"


def _start(data: Database, method: Method, seed: int) -> Section:
    if method.pretrained is None:
        return {**data.start, **method.start}
    return {"weights": pretrained(method, seed), "head": "ridge"}


def _epochs(data: Database, method: Method) -> int:
    """As many optimizer steps for all: free training makes several of every batch (Shafahi et al., 2019)."""
    inner = method.inner or {}
    visits = inner["steps"] if inner.get("method") == "free" else 1
    return max(1, round(data.epochs / visits))


def _validation(data: Database, method: Method) -> Section:
    """The epoch is chosen under attack for every method that is meant to resist one."""
    judged = data.validation and method.inner is None and method.robust
    return {**data.validation, "eps_255": EPS_255} if judged else data.validation


def toml_value(value: Any) -> str:
    """TOML of JSON values; tables are written inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
