"""`iqa-robust check`: the conformance suite, for plugin authors."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Kind(str, Enum):
    """What can be checked."""

    model = "model"
    defense = "defense"
    attack = "attack"
    dataset = "dataset"


def command(
    kind: Annotated[Kind, typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its registry name.")],
) -> None:
    """Check that a registered model, defense, attack or dataset keeps its contract."""
    from rich.markup import escape
    from rich.table import Table

    from iqa_robust import testing
    from iqa_robust.cli.terminal import make_console

    console = make_console()
    with console.status(f"checking {kind.value} {name}"):
        report = getattr(testing, f"check_{kind.value}")(name)
    table = Table(title=escape(report.subject))
    for column in ("check", "result", "detail"):
        table.add_column(column, overflow="fold")
    for item in report.checks:
        table.add_row(
            escape(item.name),
            "[green]ok[/green]" if item.passed else "[red]FAILED[/red]",
            escape(item.detail),
        )
    console.print(table)
    raise typer.Exit(0 if report.ok else 1)
