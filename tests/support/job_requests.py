"""Requests of jobs for tests of executors; nothing is run before somebody runs them."""

from __future__ import annotations

from pathlib import Path

from iqa_robust.harness.executors.base import JobRequest
from iqa_robust.harness.precision import FP32
from iqa_robust.records import Budget, Component, RunSpec


def job_request(
    *,
    attack: str = "pgd",
    batch_size: int = 2,
    seed: int = 0,
    model: str = "m",
    limit: int = 5,
    steps: int = 10,
    out: Path = Path("out"),
) -> JobRequest:
    """One cell of `limit` small photos."""
    spec = RunSpec(
        track="t-v1",
        dataset=Component(name="photos", params={"limit": limit, "crop": 48}),
        manifest="m",
        model=Component(name=model),
        weights_sha256=None,
        score_range=(0.0, 1.0),
        defense=None,
        attack=Component(name=attack),
        goal="away",
        target=None,
        budget=Budget(steps=steps),
        knowledge="adaptive",
        seed=seed,
        package_version="0",
    )
    return JobRequest((spec,), out, None, "cpu", batch_size, False, FP32)
