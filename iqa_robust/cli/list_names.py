"""`iqa-robust list`: the names of a room, own and from plugins, without loading any of them."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any

import typer


class Room(str, Enum):
    """What can be listed."""

    models = "models"
    defenses = "defenses"
    attacks = "attacks"
    datasets = "datasets"
    tracks = "tracks"


def command(
    room: Annotated[Room, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """List names, where they come from, and whether they can be used."""
    entries = _tracks() if room is Room.tracks else _registered(room.value)
    if as_json:
        print(json.dumps(entries, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None)
    for column in ("name", "distribution", "version", "status"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for entry in entries:
        status = entry["status"] + (f": {entry['detail']}" if entry["detail"] else "")
        table.add_row(entry["name"], entry["distribution"], entry["version"], escape(status))
    Console().print(table)


def _registered(room: str) -> list[dict[str, Any]]:
    import iqa_robust

    registry = getattr(iqa_robust, room).registry
    listed = []
    for name in registry.names():
        entry = registry.entry(name)
        status, detail = registry.status(name)
        listed.append(
            {
                "name": name,
                "distribution": entry.distribution,
                "version": entry.version,
                "status": status,
                "detail": detail,
                "target": entry.target,
            }
        )
    return listed


def _tracks() -> list[dict[str, Any]]:
    from iqa_robust.harness.tracks_folder import shipped_tracks
    from iqa_robust.registry import package_version

    return [
        {
            "name": name,
            "distribution": "iqa-robust",
            "version": package_version(),
            "status": "ok",
            "detail": "",
            "target": path.name,
        }
        for name, path in shipped_tracks().items()
    ]
