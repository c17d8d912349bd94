"""The folder of a run, on this machine or at a URL: finished records, and the parts of cells that are under way.

    DIR/runs/<digest>.json + .parquet       a finished cell; explanations may lie beside it
    DIR/runs/<digest>.parts/<hash>.parquet  one finished batch of a cell under way

A part is written whole or not at all, so a kill loses at most the batch in hand. Every name follows from the content
that is asked for, so whoever does a piece of work a second time writes the same file again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import pandas as pd

from iqa_robust.errors import RecordError
from iqa_robust.records import (
    Place,
    RunRecord,
    listed,
    make_writable,
    read_images,
    read_record,
    remove_folder,
    write_first,
    write_images,
    write_record,
)


class Store:
    """Records and parts below `folder/runs`."""

    def __init__(self, folder: Place) -> None:
        """`folder` is the `--out` of a run; it is made when the first thing is written."""
        self.folder = folder
        self.runs = folder / "runs"

    def prepare(self) -> None:
        """Make the folder and see that it can be written. Raises `RequestError`."""
        make_writable(self.runs, self.folder, "--out")

    def check_version(self, package_version: str) -> None:
        """Refuse to mix records of two versions of the package in one folder. Raises `RecordError`."""
        for path in listed(self.runs, "*.json"):
            try:
                other = json.loads(path.read_text())["spec"]["package_version"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not a record, or a broken one, which is run again
            if other != package_version:
                raise RecordError(
                    f"{self.folder}: holds records of iqa_robust {other}, this is {package_version};"
                    " numbers of two versions do not belong in one board, so give another --out."
                )

    def note(self, name: str, text: str | None = None) -> str | None:
        """A text kept beside the records, or None; `text` is kept where there is none, and what stands is returned.

        The first text stays, also of several workers that come at the same moment; at a URL see `write_first`.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / name
        if text is not None:
            write_first(path, text.encode())
        return path.read_text() if path.is_file() else None

    def finished(self, digest: str) -> bool:
        """Whether the cell has a whole record that did not fail; a broken or failed one is run again."""
        path = self.runs / f"{digest}.json"
        if not path.is_file():
            return False
        try:
            return read_record(path, ()).status != "failed"
        except RecordError:
            return False

    def has(self, digest: str) -> bool:
        """Whether the cell has a record, failed or not."""
        return (self.runs / f"{digest}.json").is_file()

    def parts(self, digest: str) -> pd.DataFrame | None:
        """The rows finished so far of a cell under way, or None.

        A part that cannot be read counts as not there; one that is broken is removed, too.
        """
        frames = []
        for path in listed(self._parts_folder(digest), "*.parquet"):
            try:
                frames.append(read_images(path))
            except OSError:
                continue  # storage that does not answer says nothing of the part
            except ValueError:
                path.unlink(missing_ok=True)  # another shard may do the same at this moment
        return pd.concat(frames, ignore_index=True) if frames else None

    def has_part(self, digest: str, image_ids: Sequence[str]) -> bool:
        """Whether the batch of exactly these images is kept."""
        return self._part(digest, image_ids).is_file()

    def write_part(self, digest: str, rows: pd.DataFrame) -> None:
        """Keep one finished batch, under a name that follows from its images: a second worker replaces it by itself."""
        write_images(self._part(digest, list(rows["image_id"])), rows)

    def write(self, record: RunRecord) -> None:
        """Keep a finished record; its parts go unless it failed and a later run may use them."""
        write_record(self.runs, record)
        if record.status != "failed":
            self.drop_parts(record.digest)

    def drop_parts(self, digest: str) -> None:
        """Remove the parts of a finished cell, also where a run was killed between its record and this."""
        remove_folder(self._parts_folder(digest))

    def read(self, digest: str) -> RunRecord | None:
        """The record of a cell, or None."""
        path = self.runs / f"{digest}.json"
        return read_record(path) if path.is_file() else None

    def replace_flags(self, record: RunRecord, flags: tuple[str, ...]) -> RunRecord:
        """Store other flags for a record, when they differ."""
        if flags == record.flags:
            return record
        changed = dataclasses.replace(record, flags=flags)
        self.write(changed)
        return changed

    def _part(self, digest: str, image_ids: Sequence[str]) -> Place:
        name = hashlib.sha256("\n".join(image_ids).encode()).hexdigest()[:16]
        return self._parts_folder(digest) / f"{name}.parquet"

    def _parts_folder(self, digest: str) -> Place:
        return self.runs / f"{digest}.parts"
