from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from html_page import Page

from iqa_robust.errors import RecordError
from iqa_robust.records import FLAG_NAMES, Component, RunRecord
from iqa_robust.tables import overview
from iqa_robust.tables.board import board
from iqa_robust.tables.flag_texts import FLAG_MEANINGS
from iqa_robust.tables.page import sections
from iqa_robust.tables.report import report_html, write_report
from iqa_robust.tables.verdicts import verdicts

HOSTILE = "<script>alert(1)</script>"


def page_of(records: list[RunRecord]) -> Page:
    return Page(report_html(records, board(records)))


@pytest.fixture(scope="module")
def grid(make_grid: Callable) -> list[RunRecord]:
    return make_grid(radii=(2, 4), n=15)


@pytest.fixture(scope="module")
def html(grid: list[RunRecord]) -> str:
    return report_html(grid, board(grid))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_tag_is_closed(page: Page) -> None:
    assert page.wrong == []


def test_nothing_is_loaded(html: str, page: Page) -> None:
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in {"src", "href", "data", "action", "poster", "srcset", "xlink:href"}:
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "img"}


def test_the_policy_lets_only_the_page_s_own_script_run(html: str, page: Page) -> None:
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_same_records_give_the_same_page(grid: list[RunRecord], html: str) -> None:
    assert report_html(grid[::-1], board(grid[::-1])) == html


def test_the_board_is_there_and_can_be_read_aloud(grid: list[RunRecord], page: Page) -> None:
    rows = len(board(grid))
    rowheads = [th for th in page.of("th") if th.get("scope") == "row"]
    assert len(rowheads) == 2 * rows + len(verdicts(grid))  # the board, the provenance and the defenses
    assert all(th.get("scope") in {"row", "col"} for th in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table")) == 3
    assert page.of("html")[0]["lang"] == "en"
    plots = [svg for svg in page.of("svg") if svg.get("class") == "plot"]
    assert plots and all(svg.get("role") == "img" and svg.get("aria-label") for svg in plots)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    targets = {a["href"] for a in page.of("a")}
    assert targets <= {f"#{name}" for name in ids}


def test_drawings_take_their_colors_from_the_page(html: str) -> None:
    drawn = "".join(re.findall(r'<svg class="plot".*?</svg>', html, flags=re.DOTALL))
    for token in ("ink", "muted", "grid", "s0", "s1"):
        assert f"var(--{token})" in drawn
        assert f"--{token}:" in html
    assert not re.search(r"#0[12]a0f", html)


def test_the_summary_says_what_the_board_says(grid: list[RunRecord], page: Page) -> None:
    table = board(grid)
    bare = table[(table["model"] == "alpha") & (table["defense"] == "none")]
    worst = bare.loc[bare["srocc_adv"].idxmin()]
    shown = f"{worst['srocc_clean']:.2f} → {worst['srocc_adv']:.2f}".replace("-", "\N{MINUS SIGN}")
    assert shown in page.text
    assert f"under {worst['attack']} at {worst['eps_255']:g}/255" in page.text


def test_hostile_names_and_reasons_are_text(make_record: Callable) -> None:
    component = Component(name="x", label=HOSTILE, distribution="a<b>c", version='"><img src=x>')
    base = make_record(n=12, status="partial", reason=f"broke at {HOSTILE}", facts={"note": HOSTILE, "labels": HOSTILE})
    spec = dataclasses.replace(base.spec, model=component, attack=component, defense=component, dataset=component)
    spec = dataclasses.replace(spec, track="--><h1>t</h1>")
    records = [
        dataclasses.replace(base, spec=spec),
        dataclasses.replace(base, spec=dataclasses.replace(spec, defense=None), flags=(HOSTILE,)),
        dataclasses.replace(base, spec=dataclasses.replace(spec, seed=1), status="failed"),
        make_record(n=12, model="$\\frac{1$"),
    ]
    source = report_html(records, board(records))
    page = Page(source)
    assert page.wrong == []
    assert len(page.of("script")) == 1
    assert page.of("img") == [] and len(page.of("h1")) == 2
    assert HOSTILE in page.text


def test_failures_are_said(make_record: Callable, with_failed_images: Callable) -> None:
    whole = make_record(n=12)
    records = [
        make_record(n=12, images=with_failed_images(whole.images, [1, 2]), status="partial", reason="two are broken"),
        make_record(n=12, model="beta", status="failed", reason="RuntimeError: out of luck", facts={"n_missing": 5}),
    ]
    text = page_of(records).text
    assert "1 cell failed and has no numbers" in text
    assert "2 images failed in 1 cell" in text
    assert "5 images of the dataset's split were missing" in text
    assert "RuntimeError: out of luck" in text and "two are broken" in text
    assert "partial: 2 of 12 images" in text


def test_a_sample_and_mixed_versions_are_said(make_record: Callable) -> None:
    dataset = Component(name="some-set", params={"limit": 12})
    records = [make_record(n=12, dataset=dataset), make_record(n=12, dataset=dataset, package_version="0.2.0")]
    text = page_of(records).text
    assert "A sample of 12 images" in text
    assert "several versions" in text


def test_labels_that_no_human_gave_are_a_warning(make_record: Callable) -> None:
    human, other = (page_of([make_record(n=12, facts={"labels": kind})]) for kind in ("human scores", "pseudo-MOS"))
    assert "human scores" in human.text and "The labels are" not in human.text
    assert "The labels are pseudo-MOS." in other.text


def test_a_whole_run_has_no_warning(page: Page) -> None:
    assert not [1 for _, attributes in page.elements if attributes.get("class") == "banner"]


def test_notes_labels_and_provenance_are_shown(make_record: Callable) -> None:
    facts = {"note": "rebuilt from a description", "labels": "a consensus of models, no people"}
    text = page_of([make_record(n=12, facts=facts)]).text
    assert facts["note"] in text and facts["labels"] in text
    for shown in ("0123456789ab", "fp32", "x86_64", "sha256 cdcdcdcdcdcd", make_record().digest):
        assert shown in text


def test_flags_are_explained(make_record: Callable) -> None:
    page = page_of([make_record(n=12, flags=("zero-gradient", "collapsed"))])
    titles = {span.get("title") for span in page.of("span") if span.get("class") == "badge"}
    assert titles == {FLAG_MEANINGS["zero-gradient"], FLAG_MEANINGS["collapsed"]}
    assert FLAG_MEANINGS["collapsed"] in page.text  # a title cannot be seen on a phone


def test_every_flag_has_a_meaning() -> None:
    assert tuple(FLAG_MEANINGS) == FLAG_NAMES


def test_tracks_do_not_mix(make_record: Callable) -> None:
    records = [make_record(n=12), make_record(n=12, track="other-v1"), make_record(n=12, manifest="ef" * 32)]
    found = sections(records, board(records))
    assert [(section.track, len(section.lines)) for section in found] == [
        ("example-v1", 1),
        ("example-v1", 1),
        ("other-v1", 1),
    ]
    assert len(page_of(records).of("h1")) == 3


def test_attacks_of_one_title_are_told_apart(make_record: Callable) -> None:
    short = make_record(n=12)
    budget = dataclasses.replace(short.spec.budget, steps=50)
    found = sections([short, long := make_record(n=12, budget=budget)], board([short, long]))[0]
    assert found.attacks == ["iterated (10 steps)", "iterated (50 steps)"]


def test_the_best_defense_must_have_been_evaluated_as_widely(make_record: Callable) -> None:
    records = [make_record(n=15)]
    records += [make_record(n=15, defense="blur", attack=attack) for attack in ("iterated", "one-step")]
    records += [make_record(n=15, defense="adversarial-training")]  # stronger, but met one attack only
    section = sections(records, board(records))[0]
    best = overview.headline(section)[0]["best"]
    assert best is not None and best[0] == "blur"


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_one_cell_makes_a_page(make_record: Callable, status: str) -> None:
    page = page_of([make_record(n=12, status=status, reason="" if status == "ok" else "it broke")])
    assert page.wrong == []


def test_scores_that_do_not_vary_make_a_page(make_record: Callable) -> None:
    record = make_record(n=12)
    constant = record.images.assign(score_clean=0.5, score_adv=0.5)
    page = page_of([make_record(n=12, images=constant, flags=("degenerate",))])
    assert page.wrong == []
    assert "undefined" in page.text


def test_many_systems_keep_one_color_and_marker_each(make_grid: Callable) -> None:
    defenses = (None, *(f"defense-{i}" for i in range(8)))
    records = make_grid(models=("alpha",), defenses=defenses, attacks=("iterated",), radii=(2, 4), n=12)
    source = report_html(records, board(records))
    legends = re.findall(r'<ul class="legend">(.*?)</ul>', source, flags=re.DOTALL)
    for legend in legends:
        swatches = re.findall(r"<svg.*?</svg>", legend, flags=re.DOTALL)
        assert len(swatches) == len(set(swatches)) <= 11
    assert all(f"<span>defense-{i}</span>" in source for i in range(8))


def test_many_images_are_drawn_as_pixels(make_record: Callable) -> None:
    few, many = (report_html([record], board([record])) for record in (make_record(n=100), make_record(n=900)))
    assert (few.count("<image"), many.count("<image")) == (1, 2)  # the color bar, and the points
    assert many.count("<use") < few.count("<use")


def test_a_board_of_other_records_is_refused(make_record: Callable) -> None:
    with pytest.raises(RecordError, match="was not given"):
        report_html([make_record(n=12)], board([make_record(n=12, model="beta")]))


def test_write_report_replaces_the_page(make_record: Callable, tmp_path: Path) -> None:
    records = [make_record(n=12)]
    target = tmp_path / "report.html"
    target.write_text("old")
    write_report(records, board(records), target)
    assert target.read_text(encoding="utf-8") == report_html(records, board(records))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
