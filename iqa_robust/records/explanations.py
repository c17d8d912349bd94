"""Explanations beside a record: what the scores of a few of its images rest on, clean and attacked.

They are three tables, `<digest>.pictures.parquet`, `<digest>.channels.parquet` and `<digest>.maps.parquet`, written
before the record's JSON, which names their hashes. A record without them is whole.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iqa_robust.records.parquet import arrow_schema, to_parquet
from iqa_robust.records.places import Place, write_atomically

if TYPE_CHECKING:
    import pandas as pd

IMAGE_STATES = ("clean", "attacked")
MAP_KINDS = ("causal", "non-causal")
PICTURE_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("image_id", "state"), "string"),
    "score": "float64",
    "picture": "binary",
}
"""The image, small, as JPEG, and its score by the model that is explained."""
CHANNEL_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("image_id", "state", "layer"), "string"),
    "channel": "int32",
    "weight": "float32",
    "rank": "int32",
    "importance": "float32",
}
"""One row per channel of each gate; see `IQAModel.explain`."""
MAP_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("image_id", "state", "layer", "kind"), "string"),
    "peak": "float64",
    "map": "binary",
}
"""A map as a gray 8-bit PNG in which 255 is `peak`, in units of the score."""
EXPLANATION_TABLES: Mapping[str, dict[str, str]] = {
    "pictures": PICTURE_COLUMNS,
    "channels": CHANNEL_COLUMNS,
    "maps": MAP_COLUMNS,
}
"""Name and columns of every table."""

PICTURE_SIDE = 192
"""Pixels of the longer side of a picture, at most."""
MAP_SIDE = 32
"""Likewise of a map."""
PICTURE_BYTES = 128 * 1024
"""The most that a picture may take; one of `PICTURE_SIDE` takes a tenth of it."""


@dataclass(frozen=True, eq=False)
class Explanations:
    """The tables of one record."""

    pictures: pd.DataFrame
    """`PICTURE_COLUMNS`, one row per image and state."""
    channels: pd.DataFrame
    """`CHANNEL_COLUMNS`."""
    maps: pd.DataFrame
    """`MAP_COLUMNS`, one row per image, state, gate and kind."""


def explanation_files(record: Place) -> dict[str, Place]:
    """The file of every table beside the record's JSON file, there or not."""
    return {name: record.with_suffix(f".{name}.parquet") for name in EXPLANATION_TABLES}


def write_explanations(record: Place, explanations: Explanations) -> dict[str, str]:
    """Write the tables beside the record's JSON file, each whole or not at all; returns their SHA-256 by name.

    Raises:
        StorageError: one cannot be written.
    """
    hashes = {}
    for name, path in explanation_files(record).items():
        content = to_parquet(getattr(explanations, name), EXPLANATION_TABLES[name])
        write_atomically(path, content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def read_explanations(record: Place, hashes: Mapping[str, Any]) -> Explanations:
    """Read the tables beside the record's JSON file.

    Raises:
        OSError: one is missing.
        ValueError: one is not what the hashes say, or not what `write_explanations` writes.
    """
    if set(hashes) != set(EXPLANATION_TABLES):
        raise ValueError(f"explanations_sha256: expected {', '.join(EXPLANATION_TABLES)}")
    tables = {}
    for name, path in explanation_files(record).items():
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise ValueError(f"{path.name} is not the file this record was written with")
        tables[name] = _table(name, content)
    found = Explanations(**tables)
    _check(found)
    return found


def _table(name: str, content: bytes) -> pd.DataFrame:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    wanted = EXPLANATION_TABLES[name]
    if file.schema_arrow != arrow_schema(wanted):
        raise ValueError(f"{name}: expected the columns {', '.join(wanted)}")
    return file.read().to_pandas()


def _check(found: Explanations) -> None:
    """Raise `ValueError` for values that a page could not show: files from outside are not trusted."""
    for table in (found.pictures, found.channels, found.maps):
        if not set(table["state"]) <= set(IMAGE_STATES):
            raise ValueError(f"explanations: expected a state to be one of {', '.join(IMAGE_STATES)}")
    if not set(found.maps["kind"]) <= set(MAP_KINDS):
        raise ValueError(f"explanations: expected a kind of map to be one of {', '.join(MAP_KINDS)}")
    for picture in found.pictures["picture"]:
        if not picture.startswith(b"\xff\xd8\xff") or len(picture) > PICTURE_BYTES:
            raise ValueError(f"explanations: expected pictures to be JPEG of at most {PICTURE_BYTES} bytes")
    for content in found.maps["map"]:
        # signature, length and name of the first chunk, width, height, bits, color type
        head = struct.unpack(">8sI4sIIBB", content[:26]) if len(content) > 26 else ()
        if head[:3] != (b"\x89PNG\r\n\x1a\n", 13, b"IHDR") or max(head[3:5]) > MAP_SIDE or head[5:] != (8, 0):
            raise ValueError(f"explanations: expected maps to be gray 8-bit PNG of at most {MAP_SIDE} pixels a side")
