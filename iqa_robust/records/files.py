"""Records as files, in a folder or at a URL.

A record is two files named by the digest of its spec: `<digest>.json` (everything but the images) and
`<digest>.parquet` (one row per image); explanations of some of its images may lie beside them. The JSON is written last
and names the hashes of the other files, so a record exists whole or not at all. Nothing is ever appended.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from iqa_robust.errors import RecordError, RequestError, StorageError
from iqa_robust.records.explanations import read_explanations, write_explanations
from iqa_robust.records.parquet import arrow_schema, to_parquet
from iqa_robust.records.places import Place, listed, write_atomically
from iqa_robust.records.spec import (
    CERTIFICATE_COLUMNS,
    IMAGE_COLUMNS,
    SCHEMA,
    STATUSES,
    RunRecord,
    RunSpec,
    nan_to_none,
)

if TYPE_CHECKING:
    import pandas as pd

AGAIN = "delete both files (.json and .parquet) and run again"

_TEXT, _WHOLE, _OBJECT = ((str,), "a text"), ((int,), "a whole number"), ((dict,), "an object")
_MEASURED = ((int, float, type(None)), "a number or null")
_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("digest", "status", "reason", "images_sha256"), _TEXT),
    **dict.fromkeys(("n_images", "n_failed"), _WHOLE),
    **dict.fromkeys(("spec", "facts", "probes", "environment"), _OBJECT),
    **dict.fromkeys(("seconds", "peak_memory_mb"), _MEASURED),
    "flags": ((list,), "a list"),
}
"""Types of the values of a record's JSON, and their names for people."""


def write_record(folder: Place, record: RunRecord) -> Place:
    """Write `<digest>.parquet` and the explanations, if any, then `<digest>.json`. Returns the JSON path.

    Each is written under a temporary name first.
    """
    target = folder / f"{record.digest}.json"
    parquet = _parquet(record.images)
    write_atomically(folder / f"{record.digest}.parquet", parquet)
    document = {
        "schema": SCHEMA,
        "digest": record.digest,
        "spec": record.spec.to_dict(),
        "status": record.status,
        "reason": record.reason,
        "n_images": len(record.images),
        "n_failed": int((record.images["status"] != "ok").sum()),
        "facts": dict(record.facts),
        "flags": list(record.flags),
        "probes": dict(record.probes),
        "environment": dict(record.environment),
        "seconds": record.seconds,
        "peak_memory_mb": record.peak_memory_mb,
        "images_sha256": hashlib.sha256(parquet).hexdigest(),
    }
    if record.explanations is not None:
        document["explanations_sha256"] = write_explanations(target, record.explanations)
    write_atomically(target, (json.dumps(nan_to_none(document), indent=1, allow_nan=False) + "\n").encode())
    return target


def read_record(path: Place, columns: Sequence[str] | None = None) -> RunRecord:
    """Read one record from its JSON file.

    Args:
        path: the JSON file.
        columns: those of the images that are wanted, without explanations; None takes all there is.

    Raises:
        RecordError: a file is missing or broken, the digest is not that of the spec, the images were edited, or
            `n_images`, `n_failed` or `status` is not what follows from them.
        StorageError: the store of the URL does not answer.
    """
    document, spec = _document(path)
    parquet = path.with_suffix(".parquet")
    content = _bytes(parquet)
    if hashlib.sha256(content).hexdigest() != document["images_sha256"]:
        raise RecordError(f"{parquet}: not the images this record was written with; {AGAIN}.")
    try:
        images, n_images, n_failed = _images(content, parquet, columns)
        hashes = document.get("explanations_sha256")
        shown = read_explanations(path, hashes) if hashes is not None and columns is None else None
    except StorageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # what Arrow and pandas may raise
        raise _unreadable(path, str(error)) from error
    for key, found in (("n_images", n_images), ("n_failed", n_failed)):
        if document[key] != found:
            raise RecordError(f"{path}: `{key}` is {document[key]}, but {parquet.name} has {found}; {AGAIN}.")
    if document["status"] != "failed" and (document["status"] == "ok") != (n_failed == 0):
        raise RecordError(f"{path}: `status` is {document['status']!r}, but {n_failed} images failed; {AGAIN}.")
    return RunRecord(
        spec=spec,
        status=document["status"],
        reason=document["reason"],
        facts=document["facts"],
        environment=document["environment"],
        probes={key: math.nan if value is None else value for key, value in document["probes"].items()},
        flags=tuple(document["flags"]),
        seconds=_number(document["seconds"]),
        peak_memory_mb=_number(document["peak_memory_mb"]),
        images=images,
        explanations=shown,
    )


def read_spec(path: Place) -> tuple[RunSpec, int]:
    """The spec of a record and the number of its images, from the JSON file alone. Raises as `read_record`."""
    document, spec = _document(path)
    return spec, document["n_images"]


def read_records(folder: Place) -> list[RunRecord]:
    """Every record below `folder`, ordered by digest. Raises `RecordError` when there is none or one is broken."""
    return [read_record(path) for path in record_paths(folder)]


def record_paths(folder: Place) -> list[Place]:
    """The JSON file of every record below `folder`, ordered by digest.

    Raises:
        RecordError: there is none.
        RequestError: the store of the URL does not answer.
    """
    try:
        found = [path for path in listed(folder, "*.json", below=True) if _is_digest(path.stem)]
    except StorageError as error:
        raise RequestError(str(error)) from error
    paths = sorted(found, key=lambda path: path.stem)
    if not paths:
        raise RecordError(
            f"{folder}: expected run records (<digest>.json), found none; give the --out folder of a run."
        )
    return paths


def write_images(path: Place, images: pd.DataFrame) -> None:
    """Write a per-image table as Parquet, whole or not at all: `IMAGE_COLUMNS`, and `CERTIFICATE_COLUMNS` if there."""
    write_atomically(path, _parquet(images))


def read_images(path: Place) -> pd.DataFrame:
    """Read a per-image table.

    Raises:
        OSError: the file cannot be read, now.
        ValueError: what it holds is not what `write_images` writes.
    """
    content = path.read_bytes()
    try:
        return _images(content, path, None)[0]
    except OSError as error:  # as Arrow calls bytes that it cannot decode
        raise ValueError(f"{path}: not a Parquet file ({error})") from error


def _document(path: Place) -> tuple[dict[str, Any], RunSpec]:
    try:
        document = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "it is not JSON") from error
    if not isinstance(document, dict) or "schema" not in document:
        raise _unreadable(path, "expected a JSON object with the key `schema`")
    if document["schema"] != SCHEMA:
        raise RecordError(
            f"{path}: expected record schema {SCHEMA}, got {document['schema']!r}; read it with the version of"
            f" iqa-robust that wrote it, or {AGAIN}."
        )
    for key, (kinds, words) in _KEYS.items():
        value = document.get(key, ...)
        if not isinstance(value, kinds) or isinstance(value, bool):
            got = "none" if value is ... else reprlib.repr(value)
            raise _unreadable(path, f"expected `{key}` to be {words}, got {got}")
    if not all(isinstance(flag, str) for flag in document["flags"]):
        raise _unreadable(path, f"expected `flags` to be texts, got {reprlib.repr(document['flags'])}")
    if document["status"] not in STATUSES:
        raise _unreadable(path, f"expected `status` to be one of {', '.join(STATUSES)}, got {document['status']!r}")
    try:
        spec = RunSpec.from_dict(document["spec"])
    except RecordError as error:
        raise _unreadable(path, str(error).removesuffix(".")) from error
    if not (document["digest"] == spec.digest == path.stem):
        raise RecordError(
            f"{path}: its name or digest is not that of its spec; the file was edited or renamed; {AGAIN}."
        )
    return document, spec


def _bytes(path: Place) -> bytes:
    try:
        return path.read_bytes()
    except StorageError:
        raise
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _unreadable(path: Place, why: str) -> RecordError:
    return RecordError(f"{path}: not a readable record: {why}; {AGAIN}.")


def _parquet(images: pd.DataFrame) -> bytes:
    return to_parquet(images, _columns(images.columns))


def _images(content: bytes, path: Place, columns: Sequence[str] | None) -> tuple[pd.DataFrame, int, int]:
    """The wanted columns, the number of rows, and that of the images that failed."""
    import pyarrow.compute as compute
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    names = file.schema_arrow.names
    if names != list(_columns(names)):
        raise ValueError(f"{path}: expected the columns {', '.join(IMAGE_COLUMNS)}")
    for found, wanted in zip(file.schema_arrow, arrow_schema(_columns(names)), strict=True):
        if found.type != wanted.type:
            raise ValueError(f"{path}: expected the column {found.name} to hold {wanted.type}, got {found.type}")
    if file.metadata.num_rows == 0:
        raise ValueError(f"{path}: expected a row per image, found none")
    failed = int(compute.sum(compute.not_equal(file.read(columns=["status"])["status"], "ok")).as_py() or 0)
    frame = file.read(columns=None if columns is None else [name for name in names if name in columns]).to_pandas()
    for name, kind in IMAGE_COLUMNS.items():
        if kind.startswith("list") and name in frame:
            frame[name] = [list(values) for values in frame[name]]  # as they were written, not arrays
    return frame, file.metadata.num_rows, failed


def _columns(names: Iterable[str]) -> dict[str, str]:
    """Names and types of the columns of a per-image table, with the certificates where it has any of them."""
    return IMAGE_COLUMNS | (CERTIFICATE_COLUMNS if CERTIFICATE_COLUMNS.keys() & set(names) else {})


def _is_digest(stem: str) -> bool:
    return len(stem) == 16 and all(character in "0123456789abcdef" for character in stem)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
