"""Where the shipped tracks lie, and how a track is found by name or path."""

from __future__ import annotations

from pathlib import Path

from iqa_robust.errors import UnknownNameError, did_you_mean


def tracks_folder() -> Path:
    """Where the shipped tracks lie: in the installed package, or in the checkout it is imported from."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_tracks"
    return installed if installed.is_dir() else package.parent / "benchmarks"


def shipped_tracks() -> dict[str, Path]:
    """Names and files of the tracks that ship with the package."""
    return {path.stem: path for path in sorted(tracks_folder().glob("*.toml"))}


def find_track(name_or_path: str) -> Path:
    """The file of a track.

    Raises:
        UnknownNameError: it is neither a file nor a shipped track.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    shipped = shipped_tracks()
    if name_or_path in shipped:
        return shipped[name_or_path]
    what = f"{path}: no such file." if path.suffix == ".toml" else f"no track {name_or_path!r}."
    near = did_you_mean(path.stem, shipped)
    raise UnknownNameError(f"{what}{near} Give a .toml file or one of {', '.join(shipped)}.")
