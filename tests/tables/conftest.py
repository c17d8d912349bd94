"""Synthetic records: a plausible run without a model, an image or torch."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from iqa_robust.records import IMAGE_COLUMNS, Budget, Component, Explanations, RunRecord, RunSpec

MOS_RANGE = (0.0, 100.0)
WEAKENING = {"none": 1.0, "blur": 0.7, "quantize": 0.8, "adversarial-training": 0.35}
"""How much of an attack a defense lets through when the attacker knows it."""
STRENGTH = {"noise": 0.06, "one-step": 0.5, "iterated": 1.0}


def build_record(
    *,
    model: str = "alpha",
    defense: str | None = None,
    attack: str = "iterated",
    eps_255: float = 4,
    knowledge: str = "adaptive",
    seed: int = 0,
    n: int = 40,
    status: str = "ok",
    reason: str = "",
    flags: tuple[str, ...] = (),
    facts: dict[str, Any] | None = None,
    images: pd.DataFrame | None = None,
    seconds: float = 1.5,
    explanations: Explanations | None = None,
    **spec: Any,
) -> RunRecord:
    """A record whose scores follow the MOS and lose them under attack, the same on every call.

    `spec` overrides fields of the RunSpec; `facts` is added to the usual ones.
    """
    components = {
        "dataset": Component(name="some-set", params={"split": "test"}, distribution="iqa-robust", version="0.1.0"),
        "model": Component(name=model, distribution="iqa-robust", version="0.1.0"),
        "defense": None if defense is None else Component(name=defense, distribution="iqa-robust", version="0.1.0"),
        "attack": Component(name=attack, distribution="iqa-robust", version="0.1.0"),
    }
    fields: dict[str, Any] = {
        "track": "example-v1",
        **components,
        "manifest": "ab" * 32,
        "weights_sha256": "cd" * 32,
        "score_range": (0.0, 1.0),
        "goal": "away",
        "target": None,
        "budget": Budget(eps_255=eps_255),
        "knowledge": knowledge,
        "seed": seed,
        "package_version": "0.1.0",
        **spec,
    }
    run_spec = RunSpec(**fields)
    return RunRecord(
        spec=run_spec,
        status=status,
        reason=reason,
        facts={
            "higher_is_better": True,
            "mos_higher_is_better": True,
            "mos_range": list(MOS_RANGE),
            "n_missing": 0,
            "full_reference": False,
            "deterministic": True,
            "weights_source": "trained here",
            "weights_license": "MIT",
            "access": "black" if attack == "noise" else "white",
            "control": attack == "noise",
            **(facts or {}),
        },
        environment={
            "package_version": "0.1.0",
            "git_revision": "0123456789abcdef0123456789abcdef01234567",
            "torch": "2.4.0",
            "device": "cpu",
            "device_name": "x86_64",
            "precision": "fp32",
        },
        flags=flags,
        seconds=seconds,
        peak_memory_mb=512.0,
        images=build_images(run_spec, n) if images is None else images,
        explanations=explanations,
    )


def build_images(spec: RunSpec, n: int) -> pd.DataFrame:
    """Per-image rows of `spec`: three images per reference content."""
    labels = np.random.default_rng(1)
    mos = labels.uniform(8, 92, n)
    clean = _sigmoid((mos - 50) / 18 + _noise(spec.model.title, n, 0.45))
    defense = "none" if spec.defense is None else spec.defense.title
    defended = clean if spec.defense is None else 0.9 * clean + 0.04 + 0.02 * _noise(defense, n, 1.0)
    through = WEAKENING.get(defense, 0.6)
    if spec.knowledge == "oblivious":
        through *= 0.35
    push = STRENGTH.get(spec.attack.title, 0.8) * through * spec.budget.eps_255 / 8
    direction = np.where(clean > 0.5, -1, 1) * np.abs(_noise(f"{spec.attack.title}{spec.seed}", n, 1.0) + 1)
    adv = np.clip(defended + 0.55 * push * direction, -0.1, 1.1)
    linf = np.full(n, round(spec.budget.eps_255) / 255) if spec.budget.norm == "linf" else np.full(n, 1 / 255)
    l2 = linf * math.sqrt(3 * 32 * 32) if spec.budget.norm == "linf" else np.full(n, spec.budget.eps)
    frame = pd.DataFrame(
        {
            "image_id": [f"image-{i:03d}.png" for i in range(n)],
            "reference_id": [f"content-{i // 3}" for i in range(n)],
            "mos": mos,
            "score_clean": np.float32(clean).astype(float),
            "score_adv": np.float32(adv).astype(float),
            "score_def_clean": math.nan if spec.defense is None else np.float32(defended).astype(float),
            "linf": linf,
            "l2": l2,
            "l0": 1.0,
            "patch": 1.0,
            "psnr": -20 * np.log10(np.maximum(linf, 1e-9)) + 0.2,
            "ssim": 1 - 2 * linf,
            "lpips": math.nan,
            "dists": math.nan,
            "queries": spec.budget.steps,
            "gradients": spec.budget.steps,
            "zero_gradient": False,
            "target": math.nan,
            "curve_queries": [[1]] * n,
            "curve_scores": [[0.0]] * n,
            "status": "ok",
            "reason": "",
        }
    )
    return frame[list(IMAGE_COLUMNS)]


def failed_images(frame: pd.DataFrame, which: list[int], reason: str = "cannot be read") -> pd.DataFrame:
    """`frame` with some images marked as failed, the way a run leaves them."""
    frame = frame.copy()
    numbers = ["score_clean", "score_adv", "score_def_clean", "linf", "l2", "psnr", "ssim"]
    frame.loc[which, numbers] = math.nan
    frame.loc[which, ["queries", "gradients"]] = 0
    frame.loc[which, "status"] = "failed"
    frame.loc[which, "reason"] = reason
    return frame


def build_grid(
    models: tuple[str, ...] = ("alpha", "beta"),
    defenses: tuple[str | None, ...] = (None, "blur"),
    attacks: tuple[str, ...] = ("noise", "iterated"),
    radii: tuple[float, ...] = (4,),
    **common: Any,
) -> list[RunRecord]:
    """A whole track: on a bare model one knowledge, on a defended one oblivious and adaptive (noise: black-box)."""
    records = []
    for model in models:
        for defense in defenses:
            for attack in attacks:
                direct = "black-box" if attack == "noise" else "adaptive"
                knowledges = [direct] if defense is None or attack == "noise" else ["oblivious", direct]
                records += [
                    build_record(
                        model=model, defense=defense, attack=attack, eps_255=eps, knowledge=knowledge, **common
                    )
                    for eps in radii
                    for knowledge in knowledges
                ]
    return records


def change(record: RunRecord, **fields: Any) -> RunRecord:
    """A copy with other fields; those of the spec go into the spec."""
    of_spec = {name: fields.pop(name) for name in list(fields) if name in {f.name for f in dataclasses.fields(RunSpec)}}
    return dataclasses.replace(record, spec=dataclasses.replace(record.spec, **of_spec), **fields)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _noise(name: str, n: int, sd: float) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, sd, n)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., RunRecord]:
    return build_record


@pytest.fixture(scope="session")
def make_grid() -> Callable[..., list[RunRecord]]:
    return build_grid


@pytest.fixture(scope="session")
def with_changes() -> Callable[..., RunRecord]:
    return change


@pytest.fixture(scope="session")
def with_failed_images() -> Callable[..., pd.DataFrame]:
    return failed_images
