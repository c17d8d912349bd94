"""The page a person looks at: one HTML file that loads nothing and works from anywhere."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib.resources import files

import pandas as pd

from iqa_robust.records import Place, RunRecord, write_atomically
from iqa_robust.tables import overview, plots
from iqa_robust.tables.canaries import canaries
from iqa_robust.tables.certificates import certified_lines
from iqa_robust.tables.explained import explained, explanation_notes
from iqa_robust.tables.flag_texts import FLAG_MEANINGS
from iqa_robust.tables.front import fronts, section_verdicts
from iqa_robust.tables.page import Section, sections
from iqa_robust.tables.query_plots import query_curves
from iqa_robust.tables.svg import Plot
from iqa_robust.tables.verdicts import disappeared


def write_report(records: Sequence[RunRecord], board: pd.DataFrame, path: Place) -> None:
    """Write the report, whole or not at all."""
    write_atomically(path, report_html(records, board).encode())


def report_html(records: Sequence[RunRecord], board: pd.DataFrame) -> str:
    """The report of `records` and the board made from them, as one self-contained HTML page.

    Names and reasons are escaped wherever they stand; a content security policy forbids the page to load anything and
    to run any script but its own. The same records give the same page.

    Raises:
        RecordError: `board` was not made from `records`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    folder = files("iqa_robust.tables") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("iqa_robust.tables"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = _short
    environment.filters["key"] = _sort_key
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        sections=[(section, _plots(section)) for section in sections(records, board)],
        overview=overview,
        certified=certified_lines,
        verdicts=section_verdicts,
        disappeared=disappeared,
        explained=explained,
        explanation_notes=explanation_notes,
        canaries=lambda section: canaries(section.records),
        meanings=FLAG_MEANINGS,
    )


def _plots(section: Section) -> dict[str, list[tuple[str, Plot]]]:
    """Plots by place on the page, each with a heading of its own (empty: none)."""
    return {
        "drops": [("", plots.drops(section))],
        "fronts": [("", plot) for plot in [fronts(section)] if plot.panels],
        "trade_off": [("", plot) for plot in plots.trade_off(section)],
        "movements": [("", plot) for plot in [plots.movements(section)] if plot.panels],
        "correlation": plots.security_curves(section, "srocc_adv", "attacked SROCC"),
        "queries": query_curves(section),
        "shift": plots.security_curves(section, "shift_abs_mos", "mean |shift|, MOS units"),
    }


def _short(value: float, digits: int = 3) -> str:
    """A number for reading; a dash where it is undefined."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _sort_key(value: object) -> str:
    """What the page sorts a cell by; empty, and so last, where it is undefined."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return str(value)
