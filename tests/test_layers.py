"""The arrows between the rooms, walked in the source: nothing here imports the package.

An arrow counts wherever it stands: at the top of a file, inside a function, under `TYPE_CHECKING`, or as a
string that `import_module` would follow.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "iqa_robust"
LONGEST_FILE = 400

COMMON = frozenset({"errors", "images", "registry", "records"})
PLUGIN_ROOMS = frozenset({"datasets", "models", "defenses", "attacks"})
FRONT_DOOR = "(front door)"
"""`iqa_robust/__init__.py` and `__main__.py`: they may look into every room."""

ARROWS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "images": frozenset({"errors"}),
    "registry": frozenset({"errors"}),
    "records": frozenset({"errors"}),
    "measures": frozenset({"errors"}),
    "datasets": COMMON,
    "models": COMMON,
    "defenses": COMMON | {"models"},
    "attacks": COMMON | {"models"},
    "training": COMMON | PLUGIN_ROOMS | {"measures"},
    "harness": COMMON | PLUGIN_ROOMS | {"measures", "tables"},
    "tables": frozenset({"errors", "records", "measures"}),
    "testing": COMMON | PLUGIN_ROOMS | {"harness"},
}
ARROWS["cli"] = frozenset(ARROWS)
ARROWS[FRONT_DOOR] = frozenset(ARROWS)
USERS_OF_THE_FRONT_DOOR = frozenset({"cli"})
"""They may import the package itself; a room below it that did would close a circle."""

NAMELESS_ROOMS = ("harness", "tables", "cli", "measures")
"""Rooms that know no particular model, dataset, defense or attack."""
OTHER_MEANINGS = frozenset({"csv", "psnr", "ssim"})
"""Registry names that are also a file format or a measure, and mean that outside their own room."""


class Import(NamedTuple):
    """One imported module, as written, with the line it stands on."""

    module: str
    line: int


def room_of(module: str) -> str | None:
    """`iqa_robust.models.base` -> `models`; None for a module outside the package."""
    parts = module.split(".")
    if parts[0] != "iqa_robust":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ARROWS else FRONT_DOOR


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import in `source`, which is the text of `module`, made absolute."""
    parts = module.split(".")
    package = parts if is_package else parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from iqa_robust import models` imports a room, not the front door
                yield Import(f"{origin}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"iqa_robust(\.\w+)+:\w+(\.\w+)*", node.value):
                yield Import(node.value.partition(":")[0], node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__"}:
                yield Import(str(node.args[0].value), node.lineno)


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def breaches(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of `source` that go against the arrows, as `line: target`."""
    own = room_of(module)
    assert own is not None
    if own == FRONT_DOOR and module not in {"iqa_robust", "iqa_robust.__main__"}:
        return [f"{module} is in no room"]
    found = []
    for target, line in imports_of(source, module, is_package):
        room = room_of(target)
        allowed = own in USERS_OF_THE_FRONT_DOOR if room == FRONT_DOOR else room in ARROWS[own]
        if room is not None and room != own and not allowed:
            found.append(f"{line}: {target}")
    return found


@cache
def sources() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


def test_the_walk_finds_the_rooms() -> None:
    found = {room_of(module_name(path)) for path in sources()}
    assert found >= set(ARROWS) - {"records"} - {FRONT_DOOR}
    assert (PACKAGE / "records.py").is_file() or (PACKAGE / "records").is_dir()


def test_arrows_go_one_way() -> None:
    found = {}
    for path in sources():
        against = breaches(path.read_text("utf-8"), module_name(path), path.name == "__init__.py")
        if against:
            found[str(path.relative_to(CHECKOUT))] = against
    assert not found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("iqa_robust.attacks.gradient.pgd", "from iqa_robust.defenses.base import Defense"),
        ("iqa_robust.defenses.codec.jpeg", "import iqa_robust.attacks"),
        ("iqa_robust.models.base", "def late():\n    from iqa_robust.harness import execute"),
        ("iqa_robust.models.base", "from ..training import losses"),
        ("iqa_robust.tables.board", "from iqa_robust import images"),
        ("iqa_robust.measures.shift", "from iqa_robust.records import Record"),
        ("iqa_robust.records", "from iqa_robust.models.base import IQAModel"),
        ("iqa_robust.harness.plan", "import iqa_robust"),
        ("iqa_robust.tables.board", "from iqa_robust.harness import plan"),
        ("iqa_robust.models.base", "from iqa_robust import __version__"),
        ("iqa_robust.datasets.base", "import_module('iqa_robust.models.base')"),
        ("iqa_robust.attacks.base", "LATE = 'iqa_robust.harness.execute:execute'"),
        ("iqa_robust.images", "if TYPE_CHECKING:\n    from iqa_robust.records import Record"),
        ("iqa_robust.utils", ""),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, source: str) -> None:
    assert breaches(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("iqa_robust.attacks.gradient.pgd", "from iqa_robust.models.base import IQAModel\nfrom .base import Attack"),
        ("iqa_robust.cli.run", "from iqa_robust.harness import execute\nfrom iqa_robust import __version__"),
        ("iqa_robust.harness.evaluate", "from iqa_robust.tables import board"),
        ("iqa_robust.training.pgd", "from iqa_robust import attacks, models"),
        ("iqa_robust.tables.board", "from iqa_robust import records\nimport numpy"),
    ],
)
def test_a_right_arrow_is_let_through(module: str, source: str) -> None:
    assert not breaches(source, module)


def outside_imports(room: str) -> dict[str, set[str]]:
    """Per file of `room`, the top-level modules that are neither ours nor the standard library's."""
    found = {}
    for path in sources():
        module = module_name(path)
        if room_of(module) != room:
            continue
        imports = imports_of(path.read_text("utf-8"), module, path.name == "__init__.py")
        tops = {target.partition(".")[0] for target, _ in imports}
        found[str(path.relative_to(CHECKOUT))] = tops - {"iqa_robust"} - set(sys.stdlib_module_names)
    return found


def test_measures_need_numpy_scipy_and_skimage_only() -> None:
    for path, tops in outside_imports("measures").items():
        assert tops <= {"numpy", "scipy", "skimage"}, path


@pytest.mark.parametrize("room", ["tables", "measures", "records", "registry", "errors"])
def test_records_and_tables_never_name_torch(room: str) -> None:
    for path, tops in outside_imports(room).items():
        assert not tops & {"torch", "torchvision", "piq", "art", "torchattacks"}, path


def python_files() -> list[Path]:
    return [path for folder in ("iqa_robust", "tests", "benchmarks") for path in (CHECKOUT / folder).rglob("*.py")]


def test_no_circle_of_files() -> None:
    """A package's `__init__` hands names on and counts as no file."""
    files = {module_name(path): path for path in sources() if path.name != "__init__.py"}
    arrows = {
        module: {
            name
            for target, _ in imports_of(path.read_text("utf-8"), module, is_package=False)
            for name in (target, target.rpartition(".")[0])
            if name in files and name != module
        }
        for module, path in files.items()
    }
    assert sum(map(len, arrows.values())) > len(files)
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError with the circle


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(CHECKOUT)): len(path.read_text("utf-8").splitlines()) for path in python_files()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def registered(room: str) -> dict[str, str]:
    """Built-in names of a plugin room and the modules behind them: the strings in its `__init__`."""
    found = {}
    for node in ast.walk(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    module, colon, _ = str(value.value).partition(":")
                    if colon and module.startswith(f"iqa_robust.{room}."):
                        found[str(key.value)] = module
    return found


@pytest.mark.parametrize("room", sorted(PLUGIN_ROOMS))
def test_registered_modules_exist(room: str) -> None:
    names = registered(room)
    assert names
    for name, module in names.items():
        path = CHECKOUT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), f"{name}: {module}"


def docstrings(tree: ast.AST) -> set[int]:
    """Ids of the nodes that are strings standing alone: docstrings and attribute docstrings."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


@pytest.mark.parametrize("room", NAMELESS_ROOMS)
def test_shared_rooms_name_no_particular_thing(room: str) -> None:
    tables = [registered(plugin_room) for plugin_room in PLUGIN_ROOMS]
    names = {name for table in tables for name in table}
    modules = {module for table in tables for module in table.values()}
    found = []
    for path in (PACKAGE / room).rglob("*.py"):
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        alone = docstrings(tree)
        where = path.relative_to(CHECKOUT)
        found += [
            f"{where}:{node.lineno}: {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and id(node) not in alone and node.value in names - OTHER_MEANINGS
        ]
        for target, line in imports_of(source, module_name(path), path.name == "__init__.py"):
            if any(target == module or target.startswith(f"{module}.") for module in modules):
                found.append(f"{where}:{line}: {target}")
    assert not found
