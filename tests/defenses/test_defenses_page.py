"""docs/defenses.md keeps step with the classes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from iqa_robust import defenses
from iqa_robust.defenses.base import DifferentiablePurifier, Purifier

PAGE = Path(__file__).resolve().parents[2] / "docs" / "defenses.md"
FORMS = {"published", "corrected", "adapted", "reconstructed", "ours"}
ROW = re.compile(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]*) \| (\w+) \| (yes|no) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_every_own_defense_is_on_the_page_as_it_declares_itself() -> None:
    rows = {name: cells for name, *cells in ROW.findall(PAGE.read_text("utf-8"))}
    own = [name for name in defenses.names() if "/" not in name and not defenses.get(name).canary]
    assert sorted(rows) == sorted(own)
    for name, (source, form, randomized, slope, parameters) in rows.items():
        cls = defenses.get(name)
        declared = inspect.signature(cls).parameters.values()
        assert (source, form, randomized) == (cls.source, cls.form, "no" if cls.deterministic else "yes"), name
        shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in declared]
        assert parameters == (", ".join(f"`{text}`" for text in shown) or "none"), name
        if issubclass(cls, Purifier):
            assert (slope == "exact") == issubclass(cls, DifferentiablePurifier), name


def test_every_defense_has_a_known_form_and_a_source_unless_it_is_ours() -> None:
    for name in defenses.names():
        cls = defenses.get(name)
        assert cls.form in FORMS, name
        assert cls.source or cls.form == "ours", name


def test_those_that_move_the_frame_are_named() -> None:
    sentence = PAGE.read_text("utf-8").partition("**Size and frame.**")[2].partition("\n\n")[0]
    moving = [
        name
        for name in defenses.names()
        if issubclass(cls := defenses.get(name), Purifier) and not cls.keeps_geometry and not cls.canary
    ]
    assert re.findall(r"`([\w-]+)`", sentence) == moving
