"""`iqa-robust`: assembles the verbs and turns errors into one sentence and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from iqa_robust.cli import check, list_names, report, run, submit_check, table, train
from iqa_robust.errors import IqaRobustError
from iqa_robust.registry import package_version

INTERRUPTED = 130

app = typer.Typer(
    name="iqa-robust",
    help="The adversarial-robustness benchmark for image-quality-assessment models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        print(f"iqa-robust {package_version()}")
        raise typer.Exit


app.command("list")(list_names.command)
app.command("run")(run.command)
app.command("table")(table.command)
app.command("report")(report.command)
app.command("train")(train.command)
app.command("check")(check.command)
app.command("submit-check")(submit_check.command)


def main() -> None:
    """Run a verb. Exit status: 0 done, 1 failed cells, 2 wrong request, 130 interrupted."""
    _wait_briefly()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what cannot be written is found here, not when Python has ended
    except IqaRobustError as error:
        for line in str(error).splitlines():
            print(f"iqa-robust: {line}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        if error.errno == errno.ENOSPC:  # whoever closed a pipe has seen enough
            print("iqa-robust: no space is left where the output goes; what was finished is kept.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries the rest once more as it ends
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            print(
                "iqa-robust: interrupted; what was finished is kept, the same command resumes.",
                file=sys.stderr,
            )
        raise


def _wait_briefly() -> None:
    """Let threads of GNU's OpenMP that wait for each other give their core away soon, unless the user decided.

    By default they turn in a circle for milliseconds. Beside one other busy process on two cores, an attack on a small
    network then takes 13 times as long as alone; like this it takes 3 times. The library reads it when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
