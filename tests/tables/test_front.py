"""The fronts: who stands on one, who is left out, and names that can be read."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from iqa_robust.records import RunRecord
from iqa_robust.tables.front import front, fronts
from iqa_robust.tables.place_names import LETTER, SIZE, place_names
from iqa_robust.tables.svg import axes, drawing


def test_a_front_holds_what_nothing_beats() -> None:
    points = [(0.9, 0.1), (0.8, 0.5), (0.7, 0.5), (0.5, 0.9), (math.nan, 1.0), (0.9, 0.1)]
    assert front(points) == [True, True, False, True, False, True]


def attacked(record: RunRecord, shift: float, drift: float = 0.0) -> RunRecord:
    """The record with a defense that moves clean scores by `drift`, and an attack that moves its own by `shift`."""
    images = record.images.copy()
    own = images["score_clean"] + drift
    images["score_adv"] = own + shift
    if record.spec.defense is not None:
        images["score_def_clean"] = own
    return dataclasses.replace(record, images=images)


def names(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([a-z][a-z-]*)</text>", svg))


def test_both_fronts_are_drawn_and_a_system_that_nobody_attacked_is_on_neither(make_record: Callable) -> None:
    records = [
        attacked(make_record(), 0.5),
        attacked(make_record(defense="firm", knowledge="oblivious"), 0.1, 0.05),
        attacked(make_record(defense="firm", knowledge="adaptive"), 0.2, 0.05),
        attacked(make_record(defense="weak", knowledge="adaptive"), 0.6, 0.1),  # worse both ways than none
        attacked(make_record(defense="unmet", knowledge="oblivious"), 0.01, 0.01),
    ]
    plot = fronts(SimpleNamespace(records=records))  # type: ignore[arg-type]
    correlations, shifts = plot.panels
    assert "SROCC under the strongest attack against clean SROCC of 3 systems" in correlations.svg
    assert "shift under the worst attack, sd against clean drift, share of the range of 3 systems" in shifts.svg
    assert names(shifts.svg) == {"none", "firm"}


def boxes(drawn: Any) -> list[tuple[float, float, float, float]]:
    """What the labels take, measured anew from where they were put."""
    found = []
    for text in drawn.texts:
        (x, y), (right, up) = drawn.transData.transform(text.xy), text.get_position()
        lines = text.get_text().split("\n")
        wide, high = LETTER * SIZE * max(map(len, lines)) / 2, 1.2 * SIZE * len(lines) / 2
        found.append((x + right - wide, y + up - high, x + right + wide, y + up + high))
    return found


@pytest.mark.parametrize("spread", [0.02, 0.1, 1.0])
def test_names_cover_neither_points_nor_each_other(spread: float) -> None:
    places = [(0.5 + spread * (k % 3 - 1) / 3, 0.5 + spread * (k // 3 - 1) / 3) for k in range(9)]
    with drawing():
        drawn = axes(340)
        drawn.set_xlim(0, 1)
        drawn.set_ylim(0, 1)
        place_names(drawn, [(*place, f"defense-{k}") for k, place in enumerate(places)], places)
    labels = boxes(drawn)
    dots = [(x, y, x, y) for x, y in drawn.transData.transform(places)]
    for one, other in [*itertools.combinations(labels, 2), *itertools.product(labels, dots)]:
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    left, bottom, right, top = drawn.get_window_extent().extents
    assert all(left <= a and bottom <= b and c <= right and d <= top for a, b, c, d in labels)


def test_points_in_one_place_share_a_label() -> None:
    named = [(0.5, 0.5 + 1e-9 * k, name) for k, name in enumerate(["a", "b", "c", "d"])]
    with drawing():
        drawn = axes(340)
        place_names(drawn, [*named, (0.9, 0.1, "far")], [(x, y) for x, y, _ in named])
    assert [text.get_text() for text in drawn.texts] == ["a\nb\nand 2 more", "far"]
