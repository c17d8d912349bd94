"""`iqa-robust run`: a track -> records, board.csv and report.html, with progress."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from iqa_robust.errors import RequestError, StorageError
from iqa_robust.records import Place, place


class Device(str, Enum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(str, Enum):
    """Arithmetic of the attack; final scores are always fp32."""

    auto = "auto"
    fp32 = "fp32"
    mixed = "mixed"
    bf16 = "bf16"


class ExecutorName(str, Enum):
    """Who runs the cells."""

    local = "local"
    ray = "ray"


def command(
    track: Annotated[str, typer.Argument(help="A track file, or the name of a shipped track.")],
    out: Annotated[
        str | None,
        typer.Option(help="Folder or URL for runs/, board.csv and report.html [iqa-robust-out/<track>]."),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Folder or URL of the datasets [environment variable IQA_ROBUST_DATA].")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Only these models or labels, comma-separated.")] = None,
    defenses: Annotated[
        str | None, typer.Option(help="Only these defenses, comma-separated; `none` is the bare model.")
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="Only these attacks, comma-separated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, spread over the MOS.")] = None,
    device: Annotated[Device, typer.Option(help="Where models run.")] = Device.auto,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic of the attacks' search; `auto` measures. Final scores are fp32.")
    ] = Precision.auto,
    executor: Annotated[
        ExecutorName, typer.Option(help="Who runs the cells: processes of this machine, or a Ray cluster.")
    ] = ExecutorName.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Processes or Ray actors [one per GPU; on CPUs 1, with ray all there is]."),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join, such as `auto` [one is started here].")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N of the cells, the same on every machine.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and their cost; run nothing.")] = False,
) -> None:
    """Run a track, or what is missing of it, and write its board and report."""
    root = None if data_root is None else _folder(data_root)

    from iqa_robust.cli.terminal import make_console

    console = make_console()
    with console.status("loading"):
        from iqa_robust.harness import plan as planning
        from iqa_robust.harness.executors.choose import choose
        from iqa_robust.harness.shard import Shard
        from iqa_robust.harness.track import load_track
        from iqa_robust.harness.tracks_folder import find_track

        part = None if shard is None else Shard.parse(shard)
        chosen = choose(executor.value, workers=workers, device=device.value, ray_address=ray_address)
        loaded = load_track(find_track(track))
        selection = planning.Selection(_names(models), _names(defenses), _names(attacks), limit)
        plan = planning.make_plan(loaded, data_root=root, selection=selection)
    folder = place(Path("iqa-robust-out") / loaded.name if out is None else out, "--out")
    if dry_run:
        _print_plan(plan, folder, device.value, part, console)
        return
    raise typer.Exit(_run(plan, folder, device.value, precision.value, chosen, part, console))


def _names(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    if not names:
        raise RequestError("expected names separated by commas, got an empty list; leave the option out to take all.")
    return names


def _run(plan: Any, folder: Place, device: str, precision: str, executor: Any, shard: Any, console: Any) -> int:
    from rich.markup import escape

    from iqa_robust.cli.progress import RunProgress
    from iqa_robust.cli.terminal import print_board
    from iqa_robust.harness.run import run
    from iqa_robust.tables.board import board
    from iqa_robust.tables.report import write_report
    from iqa_robust.tables.write import write_board

    title = f"[bold]{escape(plan.track.title)}[/bold] ({plan.track.id})"
    console.print(f"{title}: {len(plan.cells)} cells on {len(plan.dataset)} images")
    if plan.dataset.missing:
        console.print(
            f"[yellow]{plan.dataset.missing} images of the split are not here; every record says so.[/yellow]"
        )
    with RunProgress(console) as progress:
        records = run(
            plan, folder, device=device, precision=precision, executor=executor, shard=shard, listener=progress
        )
    failed = [record for record in records if record.status != "ok"]
    if len(records) < len(plan.cells):
        _name_failed(failed, console)
        console.print(
            f"shard {shard}: its {len(records)} cells are recorded; the last shard writes the board, and the command"
            " without --shard runs what is missing."
        )
        return 1 if failed else 0
    with console.status("board and report"):
        table = board(records)
        write_board(table, folder / "board.csv")
        write_report(records, table, folder / "report.html")
    print_board(table, console)
    _name_failed(failed, console)
    console.print(f"{folder / 'board.csv'}\n{folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _name_failed(records: Any, console: Any) -> None:
    for record in records:
        console.print(f"{record.status}: {record.digest}: {record.reason}", style="red", markup=False)


def _print_plan(plan: Any, folder: Place, device: str, shard: Any, console: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from iqa_robust.harness.estimate import estimate
    from iqa_robust.harness.store import Store

    with console.status("timing one image"):
        costs = estimate(plan, device, shard)
    store = Store(folder)
    part = "" if shard is None else f" of shard {shard}"
    title = f"{escape(plan.track.title)} ({plan.track.id})"
    table = Table(title=f"{title}: {len(costs)} cells{part} on {len(plan.dataset)} images")
    for column in (
        "cell",
        "model",
        "defense",
        "attack",
        "goal",
        "budget",
        "knowledge",
        "seed",
        "state",
        "about",
    ):
        table.add_column(column, justify="right" if column in ("budget", "seed", "about") else "left")
    left = 0.0
    for cost in costs:
        spec, there = cost.spec, store.finished(cost.spec.digest)
        left += 0 if there else cost.seconds
        table.add_row(
            spec.digest,
            spec.model.title,
            "none" if spec.defense is None else spec.defense.title,
            spec.attack.title,
            spec.goal,
            spec.budget.size,
            spec.knowledge,
            str(spec.seed),
            "done" if there else "to run",
            _duration(cost.seconds),
        )
    console.print(table)
    console.print(f"about {_duration(left)} left in one process on this machine (attack passes, measured on one image)")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _folder(data_root: str) -> Place:
    root = place(data_root, "--data-root")
    try:
        found = root.is_dir()
    except StorageError as error:  # nothing has run: what was asked for is wrong
        raise RequestError(f"--data-root {error}") from error
    if not found:
        raise RequestError(f"--data-root {data_root}: no such folder; give the folder that holds the datasets.")
    return root
