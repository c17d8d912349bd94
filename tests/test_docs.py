"""The pages keep step with the code: links and paths resolve, every flag and every column is explained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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


def strings_of(path: str, name: str) -> list[str]:
    """The string constants in the value assigned to `name` at the top of a file; the keys, for a dict."""
    for node in ast.parse((CHECKOUT / path).read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value
            items = value.keys if isinstance(value, ast.Dict) else value.elts
            return [item.value for item in items]
    raise AssertionError(f"{path} has no {name}")


def table_columns(text: str) -> list[str]:
    """The names in the first column of a Markdown table, in order."""
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([a-z0-9_]+)`", cell)]


def section(page: str, heading: str) -> str:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    return re.split(r"^##+ ", text.partition(f" {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_column_of_a_record_is_explained() -> None:
    columns = strings_of("iqa_robust/records.py", "IMAGE_COLUMNS")
    assert table_columns(section("formats", "`<digest>.parquet`")) == columns
