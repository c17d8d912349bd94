"""The Pareto fronts of defenses: what each costs on clean images against what it leaves to the strongest attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from iqa_robust.tables.cells import BARE
from iqa_robust.tables.page import Section
from iqa_robust.tables.place_names import place_names
from iqa_robust.tables.svg import MUTED, PAPER, Panel, Plot, Style, axes, drawing, to_panel
from iqa_robust.tables.verdicts import met, verdicts

ON_FRONT, OFF_FRONT, WITHOUT = Style(2, "o", ""), Style(1, "o", "", hollow=True), Style(0, "s", "")


@dataclass(frozen=True)
class _View:
    """Two columns of `verdicts`, a cost and what it buys."""

    x: str
    y: str
    across: str
    up: str
    sign: int
    """+1 where more is better on both axes, -1 where less is."""


CORRELATIONS = _View("srocc_clean", "srocc_strongest", "clean SROCC", "SROCC under the strongest attack", 1)
SHIFTS = _View("drift_scaled", "shift_worst", "clean drift, share of the range", "shift under the worst attack, sd", -1)


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
    """Per model and radius two panels: correlations, and shifts, clean and under the attack that does most.

    Systems that only an oblivious attacker has met are left out: they would lead for want of an attack.
    """
    table = section_verdicts(section)
    table = table[met(table) | (table["defense"] == BARE)]
    with drawing():
        panels = [
            _panel(str(model), str(norm), float(eps), part[part[[view.x, view.y]].notna().all(axis=1)], view)
            for (model, norm, eps), part in table.groupby(["model", "norm", "eps_255"], sort=False)
            for view in (CORRELATIONS, SHIFTS)
            if part[[view.x, view.y]].notna().all(axis=1).any()
        ]
    legend = (
        (WITHOUT.swatch(), "no defense"),
        (ON_FRONT.swatch(), "on the front: no other is better both ways"),
        (OFF_FRONT.swatch(), "dominated"),
    )
    return Plot(tuple(panels), legend if panels else ())


def _panel(model: str, norm: str, eps: float, part: pd.DataFrame, view: _View) -> Panel:
    points = list(zip(part[view.x].round(9), part[view.y].round(9), strict=True))  # so that ties are ties
    best = front([(view.sign * x, view.sign * y) for x, y in points])
    bare = [name == BARE for name in part["defense"]]
    drawn = axes(340, left=54, right=14)
    for (x, y), leads, plain in sorted(zip(points, best, bare, strict=True), key=lambda point: point[1:]):
        style = WITHOUT if plain else ON_FRONT if leads else OFF_FRONT
        drawn.plot(
            [x],
            [y],
            linestyle="",
            marker=style.marker,
            markersize=8 if leads or plain else 6,
            markerfacecolor=PAPER if style.hollow else style.paint,
            markeredgecolor=style.paint if style.hollow else PAPER,
            clip_on=False,
        )
    (low, high), (bottom, top) = (_room(values) for values in zip(*points, strict=True))
    if view.sign > 0:
        drawn.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle=":")
    for _, y in (point for point, plain in zip(points, bare, strict=True) if plain and view.sign < 0):
        drawn.axhline(y, color=MUTED, linewidth=0.9, linestyle=":")
    drawn.set_xlim(low, high)
    drawn.set_ylim(bottom, top)
    named = [
        (*point, str(name)) for point, name, *told in zip(points, part["defense"], best, bare, strict=True) if any(told)
    ]
    place_names(drawn, named, points)
    drawn.set_xlabel(view.across)
    drawn.set_ylabel(view.up)
    title = f"{model}, {norm} {eps:g}/255"
    return to_panel(
        drawn,
        title,
        f"{view.up} against {view.across} of {len(points)} systems, {title}; numbers in the table.",
    )


def _room(values: Sequence[float]) -> tuple[float, float]:
    """Limits with a margin, and room for a difference of a tenth of what is seen."""
    low, high = min(values), max(values)
    span = max(high - low, 0.1 * max(abs(low), abs(high)), 1e-6)
    return low - 0.08 * span, high + 0.1 * span
