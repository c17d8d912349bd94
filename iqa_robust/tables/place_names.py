"""Names beside the points of a plot, where they cover neither a point nor each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from iqa_robust.tables.svg import MUTED, shortened

SIZE = 9.0
"""Of the letters, in units of the drawing."""
LETTER = 0.56
"""Mean width of a letter as a share of its size: the page chooses the font, so no text can be measured."""
MARKER = 5.0
"""Half the side of the square that a point takes."""
SAME = 3.0
"""Distance below which two points are in one place."""
LINE = {"arrowstyle": "-", "edgecolor": MUTED, "linewidth": 0.6}
TOGETHER = 3
"""Names of points in one place that are written out; further ones are counted."""

DIRECTIONS = (
    *((1, 0), (-1, 0), (0, 1), (0, -1)),
    *((1, 1), (-1, 1), (1, -1), (-1, -1)),
    *((1, 0.5), (-1, 0.5), (1, -0.5), (-1, -0.5), (0.5, 1), (-0.5, 1), (0.5, -1), (-0.5, -1)),
)
"""Where a label may stand, seen from its point: right and up."""

Box = tuple[float, float, float, float]
"""left, bottom, right, top"""


def place_names(drawn: Any, named: Sequence[tuple[float, float, str]], points: Sequence[tuple[float, float]]) -> None:
    """Write each name at its point (x, y); axes limits must be set.

    Points in one place share a label. A label takes the nearest free place around its point, with a line to it where it
    is not beside it, and of places that are all taken the one that covers least.

    Args:
        drawn: axes.
        named: x, y and name of the points to name.
        points: all points, which no label may cover.
    """
    shared: dict[tuple[float, float], list[str]] = {}
    for x, y, name in sorted(named):
        at = drawn.transData.transform((x, y))
        near = [place for place in shared if math.dist(drawn.transData.transform(place), at) < SAME]
        shared.setdefault(near[0] if near else (x, y), []).append(shortened(name))
    taken: list[Box] = [_around(*drawn.transData.transform(point)) for point in points]
    edges: Box = tuple(drawn.get_window_extent().extents)
    for (x, y), names in shared.items():
        more = len(names) - TOGETHER
        lines = names[: TOGETHER - (more > 0)] + ([f"and {more + 1} more"] if more > 0 else [])
        width, height = LETTER * SIZE * (max(map(len, lines)) + 1), 1.25 * SIZE * len(lines)
        at_x, at_y = drawn.transData.transform((x, y))
        least = math.inf
        for far_off, place in _places(at_x, at_y, width, height):
            line = _way(at_x, at_y, place) if far_off else []
            cost = 4 * (_outside(place, edges) + _covered(place, taken)) + sum(_covered(dot, taken) for dot in line)
            if cost < least:
                least, far, box, way = cost, far_off, place, line
            if cost == 0:
                break
        taken += [box, *way]
        drawn.annotate(
            "\n".join(lines),
            (x, y),
            xytext=((box[0] + box[2]) / 2 - at_x, (box[1] + box[3]) / 2 - at_y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SIZE,
            arrowprops={**LINE, "shrinkA": 0, "shrinkB": 3} if far else None,
        )


def _places(x: float, y: float, width: float, height: float) -> Iterator[tuple[bool, Box]]:
    """Boxes around a point, the nearest first, and whether they need a line to it."""
    for ring in range(8):
        gap = MARKER + 2 + 11 * ring
        for right, up in DIRECTIONS:
            middle_x, middle_y = x + right * (gap + width / 2), y + up * (gap + height / 2)
            yield (
                ring > 0,
                (middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2),
            )


def _way(x: float, y: float, box: Box) -> list[Box]:
    """Small boxes along the line from a point to the middle of a box, as far as it is seen."""
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    length = math.hypot(middle_x - x, middle_y - y)
    steps = [k / length for k in range(int(2 * MARKER), int(length), int(MARKER))]
    spots = [(x + t * (middle_x - x), y + t * (middle_y - y)) for t in steps]
    return [(a - 4, b - 4, a + 4, b + 4) for a, b in spots if not (box[0] <= a <= box[2] and box[1] <= b <= box[3])]


def _around(x: float, y: float) -> Box:
    return x - MARKER, y - MARKER, x + MARKER, y + MARKER


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """Area of a box that others have."""
    return sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )


def _outside(box: Box, edges: Box) -> float:
    """Area of a box that lies outside of the axes."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _covered(box, [edges])
