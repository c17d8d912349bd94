"""The plots of the report. Each takes a section and gives panels; nothing here computes a measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from iqa_robust.tables.cells import BARE
from iqa_robust.tables.overview import worst
from iqa_robust.tables.page import Line, Section
from iqa_robust.tables.svg import (
    GRID,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    WIDTH,
    Panel,
    Plot,
    Style,
    axes,
    drawing,
    shortened,
    to_panel,
)

CLEAN = Style(0, "|", "")
BY_KNOWLEDGE = {
    "adaptive": Style(2, "o", ""),
    "black-box": Style(4, "D", ""),
    "oblivious": Style(1, "s", "", hollow=True),
}
LINES = {"adaptive": "-", "black-box": "-.", "oblivious": "--"}
MEANINGS = {
    "adaptive": "adaptive: the attacked system is the scored one",
    "black-box": "black-box: queries of the scored system only",
    "oblivious": "oblivious: attacked without its defense",
}
TOGETHER = SERIES - 1
"""Defenses drawn in one panel, beside the bare model."""
OUTLINE = "#7d868f"
"""Of points in a scatter plot: seen on light and dark, and in pixels, which cannot take colors from the page."""
VECTOR_POINTS = 400
"""Above so many points a scatter plot is embedded as pixels."""


def drops(section: Section) -> Plot:
    """Per attack, at its largest radius: SROCC of every system, clean and attacked, with its interval."""
    largest = [at_largest([line for line in section.lines if line.attack == attack]) for attack in section.attacks]
    seen = {line.values["knowledge"] for lines in largest for line in lines}
    ends = [line.values[name] for lines in largest for line in lines for name in ("srocc_adv_lo", "srocc_adv")]
    low = min([-0.02, *(end - 0.03 for end in ends if not math.isnan(end))])
    with drawing():
        panels = [_drop_panel(lines, low) for lines in largest]
    legend = [(CLEAN.swatch(), "clean images")]
    legend += [(style.swatch(), MEANINGS[name]) for name, style in BY_KNOWLEDGE.items() if name in seen]
    return Plot(tuple(panels), tuple(legend))


def security_curves(section: Section, column: str, label: str) -> list[tuple[str, Plot]]:
    """Per model: a board column against the radius, one panel per attack with at least two radii, all on one scale.

    More than six defenses are drawn in several plots, each with the bare model.
    """
    found = []
    limits = _scale(section, column)
    defended = [name for name in section.defenses if name != BARE]
    for model in section.models:
        for part in _parts(defended, TOGETHER) or [[]]:
            styles = {name: Style(color, MARKERS[color]) for color, name in enumerate([BARE, *part])}
            lines = [
                line for line in section.lines if line.values["model"] == model and line.values["defense"] in styles
            ]
            by_attack = [[line for line in lines if line.attack == attack] for attack in section.attacks]
            panels = [
                _curve_panel(chosen, styles, column, label, limits)
                for chosen in by_attack
                if len({line.values["eps_255"] for line in chosen}) > 1
            ]
            if panels:
                used = {line.values["defense"] for line in lines}
                legend = [(style.swatch(), name) for name, style in styles.items() if name in used]
                kinds = {line.values["knowledge"] for line in lines}
                legend += [
                    (Style(0, "", dash).swatch(), name)
                    for name, dash in LINES.items()
                    if name in kinds and len(kinds) > 1
                ]
                found.append((model, Plot(tuple(panels), tuple(legend))))
    return found


def trade_off(section: Section) -> list[Plot]:
    """Per attack, at its largest radius: clean against attacked SROCC of every system; empty without a defense.

    A color is a defense and a marker a model, so at most six defenses and seven models are drawn together.
    """
    defended = [name for name in section.defenses if name != BARE]
    by_attack = [
        [
            line
            for line in at_largest([line for line in section.lines if line.attack == attack and not line.control])
            if (line.bare or line.values["knowledge"] != "oblivious") and line.sound and not math.isnan(line.own_clean)
        ]
        for attack in section.attacks
    ]
    found = []
    for models in _parts(section.models, len(MARKERS)):
        for defenses in _parts(defended, TOGETHER):
            styles = {
                (model, defense): Style(color, marker, "")
                for model, marker in zip(models, MARKERS, strict=False)
                for color, defense in enumerate([BARE, *defenses])
            }
            together = [[line for line in lines if _system(line) in styles] for lines in by_attack]
            with drawing():
                panels = [_trade_panel(lines, styles) for lines in together if lines]
            if panels:
                legend = [(Style(color, "o", "").swatch(), name) for color, name in enumerate([BARE, *defenses])]
                if len(section.models) > 1:
                    legend += [
                        (Style(0, mark, "", True).swatch(), name) for name, mark in zip(models, MARKERS, strict=False)
                    ]
                found.append(Plot(tuple(panels), tuple(legend)))
    return found


def movements(section: Section) -> Plot:
    """Per bare model, under the attack that hurts it most: every image's clean and attacked score."""
    panels = []
    for model in section.models:
        bare = [line for line in section.lines if line.bare and line.values["model"] == model]
        line = worst(bare) or next((line for line in bare if line.values["status"] != "failed"), None)
        if line is not None:
            with drawing():
                panels.append(_movement_panel(line))
    return Plot(tuple(panels))


def at_largest(lines: Sequence[Line]) -> list[Line]:
    """The lines of one attack at its largest radius."""
    largest = max((line.values["eps_255"] for line in lines), default=0)
    return [line for line in lines if line.values["eps_255"] == largest]


def _drop_panel(lines: Sequence[Line], low: float) -> Panel:
    rows = _rows(lines)
    names = [shortened(label, 22) for label, _, _ in rows]
    height = 56 + 21 * len(rows)
    drawn = axes(height, left=min(150, 14 + 6.1 * max(map(len, names))), top=8 if len(rows) <= 25 else 24)
    for y, (_, _, of_row) in enumerate(rows):
        placed = sorted(of_row, key=lambda line: line.values["knowledge"] != "oblivious")
        for i, line in enumerate(placed):
            _whisker(drawn, line, y + 0.36 * (i - (len(placed) - 1) / 2))
    drawn.set_ylim(len(rows) - 0.4, -0.6)
    drawn.set_yticks(range(len(rows)), names)
    for label, (_, header, _) in zip(drawn.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if header else "normal")
    drawn.tick_params(axis="y", length=0)
    drawn.tick_params(axis="x", top=len(rows) > 25, labeltop=len(rows) > 25)
    drawn.grid(axis="y", visible=False)
    drawn.set_xlim(low, 1.02)
    drawn.locator_params(axis="x", nbins=5)
    drawn.axvline(0, color=MUTED, linewidth=0.8)
    drawn.set_xlabel("SROCC with the opinion scores")
    title = f"{lines[0].attack}, {lines[0].budget}"
    told = "; ".join(_told(line) for line in lines[:12])
    more = f"; and {len(lines) - 12} more in the board" if len(lines) > 12 else ""
    return to_panel(drawn, title, f"SROCC clean and attacked under {title}: {told}{more}.")


def _rows(lines: Sequence[Line]) -> list[tuple[str, bool, list[Line]]]:
    """(label, whether it is a heading, lines): a heading per model, a row per defense; one row where there is one."""
    rows: list[tuple[str, bool, list[Line]]] = []
    for model in dict.fromkeys(line.values["model"] for line in lines):
        own = [line for line in lines if line.values["model"] == model]
        defenses = list(dict.fromkeys(line.values["defense"] for line in own))
        if defenses == [BARE]:
            rows.append((model, False, own))
            continue
        rows.append((model, True, []))
        rows += [(name, False, [line for line in own if line.values["defense"] == name]) for name in defenses]
    return rows


def _whisker(drawn: Any, line: Line, y: float) -> None:
    style, values = BY_KNOWLEDGE[line.values["knowledge"]], line.values
    clean, attacked = line.own_clean, values["srocc_adv"]
    if math.isnan(attacked):
        text = "failed" if values["status"] == "failed" else "undefined"
        drawn.text(0.02, y, text, color=MUTED, va="center", style="italic", fontsize=9)
    if not math.isnan(clean):
        drawn.plot([clean], [y], marker="|", color=CLEAN.paint, markersize=9, markeredgewidth=1.6)
    if math.isnan(attacked):
        return
    if not math.isnan(clean):
        drawn.plot([clean, attacked], [y, y], color=GRID, linewidth=1.2, zorder=1)
    if not math.isnan(values["srocc_adv_lo"]):
        drawn.plot([values["srocc_adv_lo"], values["srocc_adv_hi"]], [y, y], color=style.paint, solid_capstyle="butt")
    face = PAPER if style.hollow else style.paint
    drawn.plot([attacked], [y], marker=style.marker, markerfacecolor=face, markeredgecolor=style.paint, linestyle="")


def _curve_panel(
    lines: Sequence[Line], styles: dict[str, Style], column: str, label: str, limits: tuple[float, float]
) -> Panel:
    attack = lines[0].attack
    with drawing():
        drawn = axes(250)
        for defense, style in styles.items():
            for knowledge, dash in LINES.items():
                chosen = [
                    line
                    for line in lines
                    if line.values["defense"] == defense
                    and line.values["knowledge"] == knowledge
                    and not math.isnan(line.values[column])
                ]
                _curve(drawn, chosen, style, dash, column)
        norm = lines[0].values["norm"]
        drawn.set_xlabel("eps in gray levels" if norm == "linf" else f"255 eps, {norm}")
        drawn.set_ylabel(label)
        radii = sorted({line.values["eps_255"] for line in lines})
        drawn.set_xticks([0, *radii] if len(radii) < 7 else radii[:: math.ceil(len(radii) / 6)])
        drawn.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        drawn.set_xlim(0, radii[-1] * 1.04)
        drawn.set_ylim(*limits)
        return to_panel(
            drawn,
            attack,
            f"{label} of {lines[0].values['model']} against the radius under {attack}; numbers in the board.",
        )


def _scale(section: Section, column: str) -> tuple[float, float]:
    values = [line.values[column] for line in section.lines if not math.isnan(line.values[column])]
    if column.startswith("shift"):
        return 0.0, 1.05 * max([*values, 1e-9])
    return min([0.0, *values]) - 0.02, 1.02


def _curve(drawn: Any, lines: Sequence[Line], style: Style, dash: str, column: str) -> None:
    if not lines:
        return
    points = sorted((line.values["eps_255"], line.values[column]) for line in lines)
    if column == "srocc_adv" and not math.isnan(lines[0].own_clean):
        points.insert(0, (0.0, lines[0].own_clean))
    elif column.startswith("shift") and lines[0].bare:
        points.insert(0, (0.0, 0.0))
    face = PAPER if dash == "--" else style.paint
    drawn.plot(*zip(*points, strict=True), color=style.paint, linestyle=dash, marker=style.marker, markerfacecolor=face)


def _parts(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]


def _system(line: Line) -> tuple[str, str]:
    return line.values["model"], line.values["defense"]


def _trade_panel(lines: Sequence[Line], styles: dict[tuple[str, str], Style]) -> Panel:
    drawn = axes(300)
    for line in lines:
        chosen = styles[_system(line)]
        drawn.plot(
            [line.own_clean],
            [line.values["srocc_adv"]],
            linestyle="",
            marker=chosen.marker,
            markersize=8,
            markerfacecolor=chosen.paint,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            clip_on=False,
        )
    low, high = _limits([line.own_clean for line in lines])
    bottom, top = _limits([line.values["srocc_adv"] for line in lines])
    drawn.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle=":")
    drawn.set_xlim(low, high)
    drawn.set_ylim(bottom, top)
    drawn.set_xlabel("clean SROCC of the system")
    drawn.set_ylabel("attacked SROCC")
    title = f"{lines[0].attack}, {lines[0].budget}"
    return to_panel(
        drawn, title, f"Clean against attacked SROCC of {len(lines)} systems under {title}; numbers in the board."
    )


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """A little more than correlations take, and no less than a fifth, so that noise does not fill the plot."""
    values = list(values)
    middle, span = (min(values) + max(values)) / 2, max(0.2, (max(values) - min(values)) * 1.25)
    return max(middle - span / 2, -1.0), min(middle + span / 2, 1.0)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """What scores of any unit take, with a margin."""
    margin = 0.05 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _movement_panel(line: Line) -> Panel:
    images = line.cell[0].images
    clean, adv, mos = (images[name].to_numpy(dtype=np.float64) for name in ("score_clean", "score_adv", "mos"))
    kept = np.isfinite(clean) & np.isfinite(adv)
    crowded = bool(kept.sum() > VECTOR_POINTS)
    drawn = axes(300, right=70)
    points = drawn.scatter(
        clean[kept],
        adv[kept],
        c=mos[kept],
        cmap="cividis",
        s=9 if crowded else 26,
        edgecolors=OUTLINE,
        linewidths=0.2 if crowded else 0.5,
        rasterized=crowded,
    )
    drawn.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle=":")
    low, high = _span([*clean[kept], *adv[kept]])
    drawn.set_xlim(low, high)
    drawn.set_ylim(low, high)
    drawn.set_xlabel("score of the clean image")
    drawn.set_ylabel("score of the attacked image")
    beside = drawn.figure.add_axes((1 - 58 / WIDTH, drawn.get_position().y0, 10 / WIDTH, drawn.get_position().height))
    drawn.figure.colorbar(points, cax=beside).set_label("opinion score (MOS)")
    title = f"{line.values['model']} under {line.attack}, {line.budget}"
    return to_panel(
        drawn, title, f"Clean and attacked scores of {int(kept.sum())} images, {title}; colored by opinion score."
    )


def _told(line: Line) -> str:
    values = line.values
    system = values["model"] if line.bare else f"{values['defense']} on {values['model']}"
    if math.isnan(values["srocc_adv"]):
        return f"{system} ({values['knowledge']}) {'failed' if values['status'] == 'failed' else 'undefined'}"
    return f"{system} ({values['knowledge']}) {line.own_clean:.2f} to {values['srocc_adv']:.2f}"
