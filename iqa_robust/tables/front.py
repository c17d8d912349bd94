"""The Pareto front of defenses: what each keeps on clean images against what it keeps under the strongest attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from iqa_robust.tables.cells import BARE
from iqa_robust.tables.page import Section
from iqa_robust.tables.svg import MUTED, PAPER, Panel, Plot, Style, axes, drawing, shortened, to_panel
from iqa_robust.tables.verdicts import verdicts

ON_FRONT, OFF_FRONT, WITHOUT = Style(2, "o", ""), Style(1, "o", "", hollow=True), Style(0, "s", "")
CLOSE = 0.045
"""Height of a label as a share of the plot: labels nearer to each other are moved apart."""


def section_verdicts(section: Section) -> pd.DataFrame:
    """`tables.verdicts` of a section that has a defense; empty for any other."""
    table = verdicts(section.records)
    return table if (table["defense"] != BARE).any() else table.iloc[:0]


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each point, whether no other is at least as good on both axes and better on one; NaN is never on it."""
    return [
        not math.isnan(x + y) and not any(a >= x and b >= y and (a > x or b > y) for a, b in points) for x, y in points
    ]


def fronts(section: Section) -> Plot:
    """Per model and radius: the clean SROCC of every system against its SROCC under its strongest attack."""
    table = section_verdicts(section)
    with drawing():
        panels = [
            _panel(str(model), str(norm), float(eps), part)
            for (model, norm, eps), part in table.groupby(["model", "norm", "eps_255"], sort=False)
            if part[["srocc_clean", "srocc_strongest"]].notna().all(axis=1).any()
        ]
    legend = (
        (WITHOUT.swatch(), "no defense"),
        (ON_FRONT.swatch(), "on the front: no other is better both ways"),
        (OFF_FRONT.swatch(), "dominated"),
    )
    return Plot(tuple(panels), legend if panels else ())


def _panel(model: str, norm: str, eps: float, part: pd.DataFrame) -> Panel:
    part = part[part["srocc_clean"].notna() & part["srocc_strongest"].notna()]
    points = list(zip(part["srocc_clean"], part["srocc_strongest"], strict=True))
    drawn = axes(340, right=14)
    labels = []
    for point, best, name in zip(points, front(points), part["defense"], strict=True):
        style = WITHOUT if name == BARE else ON_FRONT if best else OFF_FRONT
        drawn.plot(
            *([value] for value in point),
            linestyle="",
            marker=style.marker,
            markersize=8 if best or name == BARE else 6,
            markerfacecolor=PAPER if style.hollow else style.paint,
            markeredgecolor=style.paint if style.hollow else PAPER,
            clip_on=False,
        )
        if best or name == BARE:
            labels.append((point, str(name)))
    drawn.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle=":")
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    bottom, top = min(y for _, y in points), max(y for _, y in points)
    across, up = max(high - low, 0.1), max(top - bottom, 0.1)
    drawn.set_xlim(low - 0.08 * across, high + 0.08 * across)
    drawn.set_ylim(bottom - 0.08 * up, top + 0.1 * up)
    _write(drawn, labels, (low + high) / 2, CLOSE * up * 1.18)
    drawn.set_xlabel("clean SROCC of the system")
    drawn.set_ylabel("SROCC under its strongest attack")
    title = f"{model}, {norm} {eps:g}/255"
    return to_panel(drawn, title, f"Clean against worst SROCC of {len(points)} systems, {title}; numbers in the table.")


def _write(drawn: Any, labels: list[tuple[tuple[float, float], str]], middle: float, least: float) -> None:
    """Names beside their points, toward the middle of the plot, moved up where they would cover each other."""
    highest = -math.inf
    for (x, y), name in sorted(labels, key=lambda label: label[0][1]):
        height = max(y, highest + least)
        highest = height
        left = x > middle
        drawn.annotate(
            shortened(name),
            (x, height),
            xytext=(-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=9,
        )
