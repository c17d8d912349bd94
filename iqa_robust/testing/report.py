"""What a conformance suite leaves: one `Check` per question, with a sentence on what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iqa_robust.errors import ContractError

Question = tuple[str, Callable[[], str]]
"""A check's name, and a function that returns what it found or raises."""


class ViolationError(Exception):
    """A contract is not kept; the message is the sentence for the report."""


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    name: str
    passed: bool
    detail: str
    """What was found; for a failed check, what was expected and what came instead."""
    seconds: float


@dataclass(frozen=True)
class Report:
    """The answers on one subject, in the order they were asked."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def raise_if_failed(self) -> None:
        """Raise `ContractError` with a line for every failed check."""
        if self.failed:
            lines = [f"{check.name}: {check.detail}" for check in self.failed]
            head = f"{self.subject} fails {len(lines)} of {len(self.checks)} checks."
            raise ContractError("\n".join([head, *lines]))


def expect(condition: bool, sentence: str) -> None:
    """Raise `ViolationError` with `sentence` unless the condition holds."""
    if not condition:
        raise ViolationError(sentence)


def run(subject: str, questions: Sequence[Question], *, essential: int) -> Report:
    """Ask every question. Of the first `essential` ones, a failure ends the report: the rest would only echo it."""
    checks: list[Check] = []
    for number, (name, ask) in enumerate(questions):
        start = time.perf_counter()
        try:
            detail, passed = ask(), True
        except ViolationError as violation:
            detail, passed = str(violation), False
        except Exception as error:  # the subject may be wrong in any way, and that is the finding
            detail, passed = f"raised {type(error).__name__}: {error}", False
        checks.append(Check(name, passed, detail, time.perf_counter() - start))
        if not passed and number < essential:
            break
    return Report(subject, tuple(checks))
