"""Parts of cells under way: which are read, which are removed, which are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_robust.datasets.base import Row
from iqa_robust.harness.image_rows import failed_row, image_frame
from iqa_robust.harness.store import Store

DIGEST = "0123456789abcdef"
ROWS = image_frame([failed_row(Row(f"{i}", "", 50.0), "not reached") for i in range(5)])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(60) + b"PAR1"])
def test_a_part_that_is_no_parquet_file_is_removed(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.write_part(DIGEST, ROWS.iloc[:2])
    part = next(tmp_path.rglob("*.parts/*.parquet"))
    part.write_bytes(content)
    assert store.parts(DIGEST) is None
    assert not part.exists()


def test_a_part_whose_rows_are_damaged_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_part(DIGEST, ROWS.iloc[:2])
    part = next(tmp_path.rglob("*.parts/*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[:4] + bytes(200) + content[204:])  # the footer is whole, so only reading the rows tells
    assert store.parts(DIGEST) is None
    assert not part.exists()


def test_a_part_that_cannot_be_read_at_the_moment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_part(DIGEST, ROWS.iloc[:2])
    store.write_part(DIGEST, ROWS.iloc[2:])
    whole, read = store.parts(DIGEST), Path.read_bytes
    refused = next(tmp_path.rglob("*.parts/*.parquet"))

    def stale(path: Path) -> bytes:
        if path == refused:
            raise OSError(116, "Stale file handle")
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", stale)
        found = store.parts(DIGEST)
    assert whole is not None and found is not None and 0 < len(found) < len(whole)
    again = store.parts(DIGEST)
    assert again is not None and again.equals(whole)
