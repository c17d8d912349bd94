"""matplotlib figures as inline SVG that takes its colors and font from the page, light or dark."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

WIDTH = 400
"""Width of a panel in its own units, about one CSS pixel each on a phone."""
FONT = 10.5
SERIES = 7
"""Colors of series: one for the bare model, six for others."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# matplotlib draws with these; the page replaces them by its own. No two differ in less than a digit.
_TOKENS = {
    "ink": "#01a0f1",
    "muted": "#01a0f2",
    "grid": "#01a0f3",
    "paper": "#01a0f4",
    **{f"s{i}": f"#02a0f{i}" for i in range(SERIES)},
}
INK, MUTED, GRID, PAPER = (_TOKENS[name] for name in ("ink", "muted", "grid", "paper"))

_SWATCHES = {
    "o": '<circle cx="17" cy="7" r="4"/>',
    "s": '<path d="M13 3h8v8h-8z"/>',
    "^": '<path d="M17 2.5l4.6 8.5h-9.2z"/>',
    "D": '<path d="M17 1.8l5 5.2-5 5.2-5-5.2z"/>',
    "v": '<path d="M17 11.5l4.6-8.5h-9.2z"/>',
    "P": '<path d="M15.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"/>',
    "X": '<path d="M14.5 2.5l2.5 2.5 2.5-2.5 2 2-2.5 2.5 2.5 2.5-2 2-2.5-2.5-2.5 2.5-2-2 2.5-2.5-2.5-2.5z"/>',
    "|": '<path d="M16.2 2h1.6v10h-1.6z"/>',
    "": "",
}


@dataclass(frozen=True)
class Style:
    """How a series is drawn: color, marker, line, and whether the marker is hollow."""

    color: int = 0
    """Index below `SERIES`; 0 is the bare model's."""
    marker: str = "o"
    line: str = "-"
    """`-`, `--`, `-.`, or empty for none."""
    hollow: bool = False

    @property
    def paint(self) -> str:
        """The color as matplotlib is given it."""
        return _TOKENS[f"s{self.color}"]

    def swatch(self) -> str:
        """The style as a small inline SVG for a legend."""
        dashes = {"--": ' stroke-dasharray="5 3"', "-.": ' stroke-dasharray="7 2.5 2 2.5"', "-": ""}
        line = f'<path d="M1 7h32" fill="none"{dashes[self.line]}/>' if self.line else ""
        fill = "var(--paper)" if self.hollow else f"var(--s{self.color})"
        return (
            f'<svg class="swatch" viewBox="0 0 34 14" width="34" height="14" aria-hidden="true"'
            f' style="stroke:var(--s{self.color});stroke-width:1.6;fill:{fill}">{line}{_SWATCHES[self.marker]}</svg>'
        )


@dataclass(frozen=True)
class Panel:
    """One drawing."""

    title: str
    svg: str


@dataclass(frozen=True)
class Plot:
    """Drawings that belong together, with one legend: (swatch, label) pairs."""

    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...] = ()


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The settings all panels are drawn and saved under; names are shown as they are, never read as formulas."""
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "font.family": ["DejaVu Sans"],
        "font.size": FONT,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.5,
    }
    with matplotlib.rc_context(settings):
        yield


def axes(height: float, *, left: float = 46, right: float = 12, top: float = 8, bottom: float = 40) -> Any:
    """Axes of a new figure of `WIDTH` by `height`, with margins in the same units."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    return figure.add_axes(box)


def to_panel(drawn: Any, title: str, description: str) -> Panel:
    """The figure of `drawn` axes as an inline SVG.

    Element names are salted with title and description, so that two panels of a page do not share any.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"{title} {description}"}):
        drawn.figure.savefig(buffer, format="svg", dpi=144, transparent=True, metadata={"Date": None, "Creator": None})
    return Panel(title, _inline(buffer.getvalue(), description))


def shortened(label: str, length: int = 24) -> str:
    """A label that fits a plot; tables show it whole."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _inline(document: str, description: str) -> str:
    body = document[document.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    opening, rest = body.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    opening = f'<svg class="plot" {view[0] if view else ""} role="img" aria-label={quoteattr(description)}'
    rest = re.sub(r'<g id="[^"]*"', "<g", rest).replace("xlink:href", "href")
    rest = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 var(--sans)", rest)
    rest = re.sub(r"\s*\n\s*", "\n", rest)
    for name, color in _TOKENS.items():
        rest = rest.replace(color, f"var(--{name})")
    return f"{opening}>{rest}".strip()
