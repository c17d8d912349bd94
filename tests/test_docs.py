"""The pages keep step with the code: links and paths resolve, every flag and every column is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from iqa_robust.records import EXPLANATION_TABLES, FLAG_NAMES, IMAGE_COLUMNS
from iqa_robust.tables.board import BOARD_COLUMNS
from iqa_robust.tables.per_image import PER_IMAGE_COLUMNS

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *CHECKOUT.glob("*.md")])
CONTRIBUTION_PAGES = (
    "adding_a_model",
    "adding_a_defense",
    "adding_an_attack",
    "adding_a_dataset",
    "submitting_results",
)
HEADINGS = ["Write it", "Declare it", "Check it", "Run it", "Publish it"]
VERBS = {"list", "run", "table", "report", "train", "check", "submit-check"}


def headings(page: str) -> list[str]:
    return re.findall(r"^## (.+)$", (DOCS / f"{page}.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", CONTRIBUTION_PAGES)
def test_contribution_pages_have_the_same_five_headings(page: str) -> None:
    assert headings(page) == HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_resolve(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:iqa_robust|tests|docs|benchmarks)/[\w./-]*\w\.\w+|\.ci/run)`", text):
        assert (CHECKOUT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_use_verbs_that_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert set(re.findall(r"(?:^|`)iqa-robust ([a-z-]+)", text, re.MULTILINE)) <= VERBS


def test_python_blocks_are_excerpts_of_tested_files() -> None:
    """A Python block follows a line that ends with the name of its file, and stands in that file as it is."""
    for page in DOCS.glob("*.md"):
        text = page.read_text("utf-8")
        blocks = re.findall(r"`(tests/[\w./-]+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL)
        assert len(blocks) == text.count("```python"), page.name
        for path, block in blocks:
            assert block in (CHECKOUT / path).read_text("utf-8"), f"{page.name}: {path}"


def table_columns(text: str) -> list[str]:
    """The names in the first column of a Markdown table, in order."""
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([a-z0-9_]+)`", cell)]


def section(page: str, heading: str) -> str:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    return re.split(r"^##+ ", text.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("`<digest>.parquet`", IMAGE_COLUMNS),
        ("`board.csv`", BOARD_COLUMNS),
        ("Per-image CSV", PER_IMAGE_COLUMNS),
    ],
)
def test_every_column_is_explained_in_order(heading: str, columns: Iterable[str]) -> None:
    assert table_columns(section("formats", heading)) == list(columns)


def test_every_column_of_the_explanations_is_explained_in_order() -> None:
    wanted = [column for columns in EXPLANATION_TABLES.values() for column in columns]
    assert table_columns(section("formats", "Explanations")) == wanted


def test_every_flag_is_explained_in_order() -> None:
    assert headings("flags") == list(FLAG_NAMES)
    text = (DOCS / "flags.md").read_text("utf-8")
    for part in ("Raised if", "Why it matters", "What to do"):
        assert text.count(f"- **{part}** ") == len(FLAG_NAMES)


def test_every_key_of_a_track_is_explained() -> None:
    tree = ast.parse((CHECKOUT / "iqa_robust/harness/track.py").read_text("utf-8"))
    sections = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "_Section"]
    keys = {
        field.target.id
        for node in sections
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    assert keys == set(table_columns((DOCS / "tracks.md").read_text("utf-8")))


def test_every_own_attack_is_on_the_page_as_it_declares_itself() -> None:
    from iqa_robust import attacks

    rows = re.findall(
        r"^\| `([\w-]+)` \| (.+) \| (\w+) \| (\w+) \| ([\w, ]+) \| [^|]+ \|$", _attack_page(), re.MULTILINE
    )
    found = {name: (source, form, access, norms) for name, source, form, access, norms in rows}
    assert set(found) == {name for name in attacks.names() if "/" not in name}
    for name, declared in found.items():
        cls = attacks.get(name)
        assert declared == (cls.source, cls.form, cls.access, ", ".join(cls.norms)), name


def _attack_page() -> str:
    return (DOCS / "attacks.md").read_text("utf-8")
