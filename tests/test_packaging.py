"""What is promised of the whole package: metadata, dependencies, version, README's commands, the wheel."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CHECKOUT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(CHECKOUT / "setup.cfg", encoding="utf-8")


def lines(section: str, option: str) -> list[str]:
    """The non-empty lines of a multi-line option of setup.cfg."""
    return [line.strip() for line in SETUP[section][option].splitlines() if line.strip()]


def requirements(section: str, option: str) -> list[Requirement]:
    return [Requirement(line) for line in lines(section, option)]


CORE = requirements("options", "install_requires")
EXTRAS = {name: requirements("options.extras_require", name) for name in SETUP["options.extras_require"]}


def read(name: str) -> str:
    return (CHECKOUT / name).read_text("utf-8")


def test_classifiers_agree_with_python_requires() -> None:
    allowed = SpecifierSet(SETUP["options"]["python_requires"])
    prefix = "Programming Language :: Python :: 3."
    minors = {int(line.removeprefix(prefix)) for line in lines("metadata", "classifiers") if line.startswith(prefix)}
    assert minors == {minor for minor in range(40) if f"3.{minor}.0" in allowed}
    assert min(minors) == 10


def test_extras() -> None:
    assert {"test", "all"} <= EXTRAS.keys()
    (everything,) = EXTRAS["all"]
    assert everything.name == SETUP["metadata"]["name"]
    assert everything.extras == EXTRAS.keys() - {"all"}


def test_every_package_of_the_tree_is_listed() -> None:
    on_disk = {
        ".".join(path.parent.relative_to(CHECKOUT).parts) for path in (CHECKOUT / "iqa_robust").rglob("__init__.py")
    }
    assert set(lines("options", "packages")) == on_disk | {"iqa_robust._tracks"}


def test_every_core_dependency_is_justified_once() -> None:
    page = read("CONTRIBUTING.md").partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([A-Za-z0-9._-]+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(requirement.name for requirement in CORE)


def test_lowest_constraints_are_the_lower_bounds() -> None:
    bounds = {}
    for requirement in [*CORE, *EXTRAS["test"]]:
        (lower,) = [part.version for part in requirement.specifier if part.operator == ">="]
        bounds[requirement.name] = SpecifierSet(f"=={lower}")
    pins = [Requirement(line) for line in read("tests/constraints-lowest.txt").splitlines() if line[:1] not in "#"]
    assert sorted(pin.name for pin in pins) == sorted(bounds)
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "==" and exact.version in bounds[pin.name], pin.name


def test_readme_starts_with_two_commands_of_one_line() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", read("README.md"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks[:2]:
        assert len(block.splitlines()) == 1
        assert block.strip() == block.rstrip("\n")
    first, second = blocks[:2]
    assert "iqa-robust" in first
    assert ".venv" in second and ".[test]" in second and "pytest" in second


def test_one_version() -> None:
    version = SETUP["metadata"]["version"]
    (top, *_) = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert top == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version


def test_citation_has_what_the_format_requires() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"]
    assert all(author["name"] for author in citation["authors"])
    assert citation["license"] == SETUP["metadata"]["license"]


def test_issue_forms_have_what_the_forge_requires() -> None:
    forms = sorted((CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    names = {path.stem for path in forms}
    assert names == {"new_model", "new_defense", "new_result", "counter_claim", "bug", "config"}
    for path in forms:
        if path.stem == "config":
            continue
        form = yaml.safe_load(path.read_text("utf-8"))
        assert form["name"] and form["description"]
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert ids and len(set(ids)) == len(ids)
        assert all(field["attributes"]["label"] for field in form["body"] if field["type"] != "markdown")


def test_workflow_covers_the_promised_pythons() -> None:
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert workflow["permissions"] == {"contents": "read"}
    allowed = SpecifierSet(SETUP["options"]["python_requires"])
    versions = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(40) if f"3.{minor}.0" in allowed]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    # A copy, so that no earlier `build/` leaks into the wheel and the checkout stays as it is.
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for folder in ("iqa_robust", "benchmarks"):
        shutil.copytree(CHECKOUT / folder, source / folder, ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())

    files = {path.relative_to(source).as_posix() for path in (source / "iqa_robust").rglob("*") if path.is_file()}
    tracks = {f"iqa_robust/_tracks/{path.name}" for path in (source / "benchmarks").glob("*.toml")}
    assert tracks
    assert {name for name in held if ".dist-info/" not in name} == files | tracks
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
