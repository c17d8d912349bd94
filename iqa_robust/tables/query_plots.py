"""Shift against queries: what black-box attacks reach with every smaller budget, from the runs on the board."""

from __future__ import annotations

from typing import Any

import numpy as np

from iqa_robust.measures.queries import shift_at_queries
from iqa_robust.tables.page import Line, Section
from iqa_robust.tables.svg import MARKERS, SERIES, Panel, Plot, Style, axes, drawing, shortened, to_panel

FEWEST = 50
"""Queries below which a curve has no shape."""


def query_curves(section: Section) -> list[tuple[str, Plot]]:
    """Per model, a panel for each system and budget that black-box attacks queried, one curve per attack."""
    queried = [line for line in section.lines if _queries(line) >= FEWEST]
    found = []
    for model in section.models:
        lines = [line for line in queried if line.values["model"] == model]
        names = list(dict.fromkeys(line.attack for line in lines))
        for start in range(0, len(names), SERIES):
            styles = {name: Style(i, MARKERS[i]) for i, name in enumerate(names[start : start + SERIES])}
            groups: dict[tuple[str, str], list[Line]] = {}
            for line in lines:
                if line.attack in styles:
                    groups.setdefault((line.values["defense"], line.budget), []).append(line)
            panels = tuple(_panel(model, *group, chosen, styles) for group, chosen in groups.items())
            legend = tuple((style.swatch(), name) for name, style in styles.items())
            found.append((model if len(section.models) > 1 else "", Plot(panels, legend)))
    return found


def _queries(line: Line) -> int:
    """The most queries an image of the line took; 0 where the system that was queried is not the scored one."""
    record = line.cell[0]
    if line.values["knowledge"] != "black-box" or line.control or record.status == "failed":
        return 0
    return int(record.images["queries"].max())


def _panel(model: str, defense: str, budget: str, lines: list[Line], styles: dict[str, Style]) -> Panel:
    title = budget if defense == "none" else f"{defense}, {budget}"
    most = max(_queries(line) for line in lines)
    marks = np.unique(np.geomspace(1, most, 60).round())
    with drawing():
        drawn = axes(250)
        for line in lines:
            style = styles[line.attack]
            kept = marks[marks <= _queries(line)]
            drawn.plot(
                kept,
                _mean_shift(line, kept),
                color=style.paint,
                marker=style.marker,
                markevery=(0.1, 0.3),
            )
        drawn.set_xscale("log")
        drawn.set_xlim(1, most)
        drawn.set_ylim(0, None)
        drawn.set_xlabel("queries per image")
        drawn.set_ylabel("mean |shift| / score range")
        drawn.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        described = ", ".join(shortened(line.attack) for line in lines)
        return to_panel(
            drawn, title, f"Mean shift of {model}, {title}, against queries under {described}; numbers in the records."
        )


def _mean_shift(line: Line, marks: np.ndarray) -> Any:
    """Over images and seeds, as a share of the score range (native units where there is none)."""
    curves = []
    for record in line.cell:
        if record.status == "failed":
            continue
        images = record.images
        clean = images["score_clean"] if record.spec.defense is None else images["score_def_clean"]
        span = 1.0 if record.spec.score_range is None else record.spec.score_range[1] - record.spec.score_range[0]
        curves.append(
            shift_at_queries(clean, list(images["curve_queries"]), list(images["curve_scores"]), marks) / span
        )
    return np.mean(curves, axis=0)
