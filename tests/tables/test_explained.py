"""What gated models look at: tables of known answer, and the section of the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from drawn import explanations, png
from html_page import Page
from PIL import Image

from iqa_robust.errors import RecordError
from iqa_robust.records import RunRecord
from iqa_robust.tables.board import board
from iqa_robust.tables.explained import explained, movements, top_channels
from iqa_robust.tables.maps import HUES, map_uri
from iqa_robust.tables.page import sections
from iqa_robust.tables.report import report_html

# Two images, four channels. Clean ranks: 1 2 3 4 and 2 1 3 4; attacked: 2 1 3 4 and 4 3 2 1.
IMPORTANCE = {
    "clean": [[8.0, 4.0, 2.0, 1.0], [4.0, 6.0, 2.0, 1.0]],
    "attacked": [[3.0, 5.0, 2.0, 1.0], [1.0, 2.0, 4.0, 8.0]],
}
HOSTILE = "<img src=x onerror=alert(1)>"


def page_of(records: list[RunRecord]) -> Page:
    return Page(report_html(records, board(records)))


def test_channels_by_mean_importance_on_clean_images() -> None:
    rows = top_channels(explanations(IMPORTANCE), top=3)
    assert [(row["layer"], row["channel"], row["of"]) for row in rows] == [
        ("gates.0", channel, 4) for channel in (0, 1, 2)
    ]
    # by hand: (8 + 4) / 2, (4 + 6) / 2, (2 + 2) / 2, and so on
    assert [row["importance_clean"] for row in rows] == [6.0, 5.0, 2.0]
    assert [row["importance_attacked"] for row in rows] == [2.0, 3.5, 3.0]
    assert [row["rank_clean"] for row in rows] == [1.5, 1.5, 3.0]
    assert [row["rank_attacked"] for row in rows] == [3.0, 2.0, 2.5]
    assert [row["moved"] for row in rows] == [1.5, 1.5, 0.5]
    assert [row["weight_clean"] for row in rows] == [1.0, 0.5, 1 / 3]


def test_movements_are_means_over_images() -> None:
    (row,) = movements(explanations(IMPORTANCE))
    # Spearman's 1 - 6 sum d^2 / (n (n^2 - 1)): d^2 sums to 2 in the first image, 4 + 4 + 1 + 9 in the second
    assert row["correlation"] == pytest.approx(((1 - 12 / 60) + (1 - 108 / 60)) / 2)
    # ranks move by 1 1 0 0 and 2 2 1 3 of four channels
    assert row["moved"] == pytest.approx((0.5 + 2.0) / 2 / 4)
    assert row["map_correlation"] == pytest.approx(-1 / 3)


def test_equal_importances_have_no_rank_correlation() -> None:
    (row,) = movements(explanations({"clean": [[1.0, 1.0]] * 2, "attacked": [[1.0, 2.0]] * 2}))
    assert np.isnan(row["correlation"])


def test_a_map_is_one_hue_whose_opacity_follows_the_value() -> None:
    uri = map_uri(png([[0, 255]]), "causal", 0.25)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA")
    none, quarter = image.getpixel((0, 0)), image.getpixel((1, 0))
    assert isinstance(none, tuple) and isinstance(quarter, tuple)
    assert none[3] == 0
    assert quarter[3] == pytest.approx(255 * 0.9 * 0.5, abs=1)  # the root of a quarter
    low, high = HUES["causal"]
    assert quarter[:3] == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(low, high, strict=True)], abs=1)


def test_a_broken_map_is_refused() -> None:
    with pytest.raises(RecordError, match="a map cannot be decoded"):
        map_uri(png([[0, 255]])[:40], "causal", 1.0)


def test_the_page_shows_what_a_gated_model_looks_at(make_record: Callable) -> None:
    gated = make_record(n=12, explanations=explanations(IMPORTANCE))
    page = page_of([gated, make_record(n=12, model="beta")])
    assert page.wrong == []
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = [a.get("href") for a in page.of("a")]
    assert "looks-1" in ids and links.count("#looks-1") == 2  # in the navigation and in the card of the model
    looks = [div for div in page.of("div") if (div.get("class") or "").split()[:1] == ["look"]]
    assert len(looks) == 2 * 6  # two images: clean and attacked, causal and non-causal maps of both
    labels = [div["aria-label"] for div in looks[:6]]
    assert labels == [
        f"a: {title}"
        for title in (
            *("clean", "attacked", "causal, clean", "causal, attacked"),
            *("non-causal, clean", "non-causal, attacked"),
        )
    ]
    assert "a: score 0.75 → 0.25" in page.text
    assert "Most causal channels of gates.0: clean 0, 1, 2, 3; attacked 1, 0, 2, 3." in page.text
    assert all((img.get("src") or "").startswith("data:image/png;base64,") for img in page.of("img"))
    styles = [style for div in page.of("div") if (style := div.get("style") or "").startswith("--clean")]
    assert len(styles) == 2
    assert all(re.findall(r"url\((.{15})", style) == ["data:image/jpeg"] * 2 for style in styles)
    assert all("--ratio: 40 / 20" in style for style in styles)
    assert all(th.get("scope") in {"row", "col"} for th in page.of("th"))


def test_the_attack_that_moves_scores_furthest_is_shown(make_record: Callable) -> None:
    weak, strong = (
        make_record(n=12, attack=attack, explanations=explanations(IMPORTANCE)) for attack in ("one-step", "iterated")
    )
    (section,) = sections([weak, strong], board([weak, strong]))
    (system,) = explained(section)
    assert system.line.attack == "iterated"
    assert [line.attack for line, _ in system.moves] == ["iterated", "one-step"]


def test_cells_without_explanations_show_nothing(make_record: Callable) -> None:
    page = page_of([make_record(n=12)])
    assert "What the model looks at" not in page.text
    assert page.of("img") == []


def test_a_cell_that_could_not_be_explained_says_so(make_record: Callable) -> None:
    page = page_of([make_record(n=12, facts={"explanation_note": f"ValueError: {HOSTILE}"})])
    assert f"Not explained: alpha, none, iterated at 4/255 (ValueError: {HOSTILE})." in page.text
    assert page.of("img") == []


def test_hostile_names_are_text(make_record: Callable) -> None:
    found = explanations(IMPORTANCE, layer=HOSTILE, ids=(HOSTILE, '" onload="x'))
    page = page_of([make_record(n=12, model=HOSTILE, explanations=found)])
    assert page.wrong == []
    assert len(page.of("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all((img.get("src") or "").startswith("data:") for img in page.of("img"))
    assert f"{HOSTILE}: score 0.75" in page.text and f"Most causal channels of {HOSTILE}" in page.text
