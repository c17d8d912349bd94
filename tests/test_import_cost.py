"""Nothing heavy happens at import time: the package, its rooms and `iqa-robust list` load no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
ROOMS = sorted(path.parent.name for path in (CHECKOUT / "iqa_robust").glob("*/__init__.py"))

HEAVY = ("torch", "torchvision", "piq", "art", "torchattacks", "sklearn", "ray")
REPORT = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""
# An installed plugin can only be judged by importing it, and it may import torch: look at our own entries.
NO_PLUGINS = """
import importlib.metadata as metadata
everything = metadata.entry_points
metadata.entry_points = lambda **params: [
    point for point in everything(**params) if not point.group.startswith("iqa_robust.")
]
"""
LIST = """
import sys
sys.argv = ["iqa-robust", "list", {kind!r}, "--json"]
from iqa_robust.cli.main import main
try:
    status = main()
except SystemExit as leave:
    status = leave.code
assert not status, status
"""


def run(program: str) -> tuple[str, list[str]]:
    """Standard output of `program` in a fresh interpreter, and the heavy modules it has loaded by its end."""
    done = subprocess.run([sys.executable, "-c", program + REPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


def test_the_probe_sees_torch() -> None:
    assert "torch" in run("import torch")[1]


@pytest.mark.parametrize("module", ["iqa_robust", "iqa_robust.cli.main", *(f"iqa_robust.{room}" for room in ROOMS)])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert run(f"import {module}")[1] == []


def test_the_rooms_hang_on_the_package() -> None:
    program = "import iqa_robust as ir\nfor room in (ir.models, ir.defenses, ir.attacks, ir.datasets): room.names()"
    assert run(program)[1] == []


@pytest.mark.parametrize("kind", ["models", "defenses", "attacks", "datasets", "tracks"])
def test_listing_loads_nothing_heavy(kind: str) -> None:
    printed, heavy = run(NO_PLUGINS + LIST.format(kind=kind))
    assert heavy == []
    rows = json.loads(printed)
    assert rows
    assert all({"name", "distribution", "version", "status"} <= row.keys() for row in rows)


@pytest.mark.parametrize(("asked", "spins"), [({}, "10000"), ({"OMP_WAIT_POLICY": "active"}, None)])
def test_how_threads_wait_is_decided_before_torch_is_loaded(asked: dict[str, str], spins: str | None) -> None:
    code = (
        "import json, os, sys\nsys.argv = ['iqa-robust', '--version']\nfrom iqa_robust.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(['torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT')]))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT, env=kept | asked
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == [False, spins]
