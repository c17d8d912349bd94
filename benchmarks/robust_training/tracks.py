"""The tracks that judge the checkpoints of one database: adaptive attacks through the true gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from databases import DATABASES
from recipes import toml_value

PURIFIERS = ("non-local-means", "art/gaussian-augmentation")
"""With `webp`, those that had the most left in docs/defense_results.md when they were chosen."""
PURIFIED = ("clean", "pretrained-wide-sort-mask-correlation-4")
"""Methods whose networks are put behind them: the bare one, and a robust one with a good clean SROCC."""
CODED = (
    *PURIFIED,
    "at",
    "nt",
    "nt-weaker",
    "correlation-4",
    "wide-sort-mask-correlation-4",
    "pretrained-correlation-4",
)
"""Methods whose networks are put behind `webp`: the bare one and the leading robust ones."""
CONTROL = """
[[attacks]]
name = "noise"
"""
WORST_CASE = """
[[attacks]]
name = "worst-case"
goal = "reflect"
steps = 10
queries = 200
"""
ATTACKS = f"""{CONTROL}
[[attacks]]
name = "pgd"
steps = 10

[[attacks]]
name = "score-reflection"
goal = "reflect"
eps_255 = [1, 2, 4]
{WORST_CASE}"""
"""Goal `reflect` sends every score to the other side, as `away` need not; `worst-case` has 200 queries, of which its
gradients take about 80."""


RADII = f"""{CONTROL}
[[attacks]]
name = "pgd"
goal = "reflect"
steps = 100
eps_255 = [1, 2, 4]
{WORST_CASE}eps_255 = [1, 4]
"""
"""What the other tracks leave out: `worst-case` at the other radii, and PGD of ten times the steps."""

DESCRIPTION = (
    "Checkpoints of benchmarks/robust_training, attacked adaptively; runs where the weights lie. cprl-*, soft-rank-*"
    " and *sort-mask-* are CPRL-style reconstructions of ours, not the paper's method."
)
LEADING = (
    "clean", "clean-fp32", "correlation", "at", "nt", "wide-sort-mask-correlation", "correlation-4",
    "wide-sort-mask-correlation-4", "pretrained-correlation-4",
    "pretrained-wide-sort-mask-correlation-4",
)  # fmt: skip
"""Methods whose differences more images must tell apart, and the one that clean scores are compared with."""
MANY = 120
"""Images of the track of the leading methods; the others have the first of them."""


def track(database: str, checkpoints: Sequence[Path], out: Path) -> str:
    """The track of the checkpoints as TOML, each labeled by its file's name; their paths are relative to `out`."""
    title = f"Robust trainings on {database}"
    return _track(f"robust-{database}", title, database, checkpoints, out, ("none",), ATTACKS)


def leading_track(database: str, checkpoints: Sequence[Path], out: Path) -> str:
    """The track of the leading methods among the checkpoints: `worst-case` and its control, on more images."""
    leading = [path for path in checkpoints if _method(path) in LEADING]
    title = f"The leading robust trainings on {database}"
    attacks = CONTROL + WORST_CASE
    return _track(f"leading-{database}", title, database, leading, out, ("none",), attacks, version=2, limit=MANY)


def radii_track(database: str, checkpoints: Sequence[Path], out: Path) -> str:
    """The track of the first checkpoint of each leading method: more radii and more steps."""
    title = f"The leading robust trainings on {database}, more radii and steps"
    return _track(f"radii-{database}", title, database, _first(checkpoints, LEADING), out, ("none",), RADII)


def purified_track(database: str, checkpoints: Sequence[Path], out: Path) -> str:
    """The track of the first checkpoint of each of `PURIFIED` behind `PURIFIERS`."""
    first, behind = _first(checkpoints, PURIFIED), ("none", *PURIFIERS)
    title = f"The best purifiers on {database}"
    return _track(f"purified-{database}", title, database, first, out, behind, ATTACKS, version=2)


def webp_track(database: str, checkpoints: Sequence[Path], out: Path) -> str:
    """The track of the first checkpoint of each of `CODED` behind `webp`."""
    title = f"The leading robust trainings behind WebP on {database}"
    return _track(f"webp-{database}", title, database, _first(checkpoints, CODED), out, ("none", "webp"), ATTACKS)


def _first(checkpoints: Sequence[Path], methods: Sequence[str]) -> list[Path]:
    """The first checkpoint of each of the methods, in the order of the checkpoints."""
    first = {method: path for path in reversed(checkpoints) if (method := _method(path)) in methods}
    return list(first.values())[::-1]


def _method(checkpoint: Path) -> str:
    return checkpoint.stem.rpartition("-seed")[0]


def _track(
    name: str,
    title: str,
    database: str,
    checkpoints: Sequence[Path],
    out: Path,
    defenses: Sequence[str],
    attacks: str,
    version: int = 1,
    **judged: int,
) -> str:
    data = DATABASES[database]
    low, high = data.score_range
    models = [
        f"""
[[models]]
name = "{data.network}"
label = "{path.stem}"
params = {{ weights = "{path.relative_to(out).as_posix()}" }}
score_range = [{low}, {high}]
"""
        for path in checkpoints
    ]
    behind = [f'\n[[defenses]]\nname = "{defense}"\n' for defense in defenses]
    return f"""name = "{name}"
version = {version}
title = "{title}"
description = "{DESCRIPTION}"
batch_size = 8

[dataset]
name = "{data.dataset}"
params = {toml_value({"split": "test", **data.judged, **judged})}
{"".join(models)}{"".join(behind)}
[budget]
goal = "away"
norm = "linf"
eps_255 = 2
steps = 20
eot = 4
{attacks}"""
