"""The report of the conformance suite, and that importing it costs nothing."""

from __future__ import annotations

import pytest

from iqa_robust import testing
from iqa_robust.errors import ContractError, RequestError, UnknownNameError
from iqa_robust.testing.report import Check, Report, ViolationError, expect, run


def fails() -> str:
    raise ViolationError("expected 1, got 2.")


def breaks() -> str:
    raise KeyError("oops")


def test_every_question_is_answered() -> None:
    report = run("thing", [("a", lambda: "fine"), ("b", fails), ("c", breaks), ("d", lambda: "")], essential=1)
    assert [(check.name, check.passed, check.detail) for check in report.checks] == [
        ("a", True, "fine"),
        ("b", False, "expected 1, got 2."),
        ("c", False, "raised KeyError: 'oops'"),
        ("d", True, ""),
    ]
    assert not report.ok
    assert [check.name for check in report.failed] == ["b", "c"]
    assert all(check.seconds >= 0 for check in report.checks)


def test_an_essential_failure_ends_the_report() -> None:
    report = run("thing", [("a", lambda: "fine"), ("b", fails), ("c", breaks)], essential=2)
    assert [check.name for check in report.checks] == ["a", "b"]


def test_raise_if_failed() -> None:
    Report("thing", (Check("a", True, "fine", 0.1),)).raise_if_failed()
    report = run("attack 'mine'", [("a", lambda: "fine"), ("b", fails), ("c", breaks)], essential=0)
    sentence = "attack 'mine' fails 2 of 3 checks.\nb: expected 1, got 2.\nc: raised KeyError: 'oops'"
    with pytest.raises(ContractError) as raised:
        report.raise_if_failed()
    assert str(raised.value) == sentence


def test_expect() -> None:
    expect(True, "never said")
    with pytest.raises(ViolationError, match=r"^said$"):
        expect(False, "said")


@pytest.mark.parametrize("kind", ["model", "defense", "attack", "dataset"])
def test_what_is_no_subject_is_refused(kind: str) -> None:
    check = getattr(testing, f"check_{kind}")
    with pytest.raises(ContractError, match=rf"check_{kind}: expected a registry name or an instance of .*, got int\."):
        check(3)
    with pytest.raises(ContractError, match=r"make an instance of it"):
        check(int)
    with pytest.raises(UnknownNameError, match=rf"no {kind} named 'no-such-thing'"):
        check("no-such-thing")


def test_a_name_that_needs_parameters_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="table"):
        testing.check_dataset("csv")
