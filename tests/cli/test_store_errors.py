"""A store whose package raises errors of its own, as those of S3 and GCS do: one sentence each, and no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from iqa_robust.datasets.fetched import local_root
from iqa_robust.errors import DataError, RequestError, StorageError
from iqa_robust.harness.store import Store
from iqa_robust.records import Remote, atomic_writer, listed, read_record, remove_folder, write_atomically


class NoCredentialsError(Exception):
    """Like botocore's: an exception, and nothing more special than that."""


class Refusing(MemoryFileSystem):
    """A store that answers no request."""

    protocol = "refusing"

    def refuse(self, *_: Any, **__: Any) -> Any:
        raise NoCredentialsError("Unable to locate credentials\nand a second line")

    isfile = isdir = cat_file = pipe_file = put_file = get_file = ls = find = rm = rm_file = makedirs = refuse


fsspec.register_implementation("refusing", Refusing, clobber=True)
HERE = Remote("refusing://bucket/out")
ANSWER = (
    "the store does not answer as it should (Unable to locate credentials); see that the address is right and that the"
    " credentials are where its package looks for them."
)
WRITING = (
    "cannot be written (Unable to locate credentials); what was finished is kept: free some space or choose another"
    " place, and give the same command again."
)


@pytest.mark.parametrize(
    "call",
    [
        HERE.is_file,
        HERE.is_dir,
        HERE.read_text,
        lambda: HERE.write_bytes(b""),
        lambda: HERE.get(Path("nowhere")),
        lambda: listed(HERE, "*"),
        lambda: listed(HERE, "*", below=True),
        HERE.unlink,
        lambda: remove_folder(HERE),
        lambda: remove_folder(Remote("refusing://bucket/out[1]")),
    ],
)
def test_every_request(call: Any) -> None:
    with pytest.raises(StorageError) as caught:
        call()
    assert str(caught.value).endswith(f": {ANSWER}")


def test_writing_and_reading_say_what_it_was_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IQA_ROBUST_CACHE", str(tmp_path))
    with pytest.raises(StorageError) as caught:
        write_atomically(HERE / "a", b"")
    assert str(caught.value) == f"{HERE}/a: {WRITING}"
    with pytest.raises(StorageError) as caught, atomic_writer(HERE / "a") as file:
        file.write(b"")
    assert str(caught.value) == f"{HERE}/a: {WRITING}"
    with pytest.raises(RequestError) as asked:
        Store(HERE).prepare()
    assert str(asked.value) == f"{HERE}: cannot be written (Unable to locate credentials); give another --out."
    with pytest.raises(
        DataError, match=r"^refusing://data: cannot be copied to .* \(Unable to locate credentials\)\.$"
    ):
        local_root(Remote("refusing://data"), ("clive",))
    with pytest.raises(StorageError):  # not a `RecordError`: a broken record would be run again
        read_record(HERE / "0123456789abcdef.json")


@pytest.mark.parametrize("verb", ["table", "report"])
def test_a_folder_of_records_that_cannot_be_read_is_a_wrong_request(cli, verb: str) -> None:
    outcome = cli(verb, str(HERE))
    assert (outcome.status, outcome.err) == (2, f"iqa-robust: {HERE}: {ANSWER}\n")


def test_a_run_that_cannot_write(cli, track: Path) -> None:
    outcome = cli("run", track, "--out", str(HERE))
    sentence = f"{HERE}: cannot be written (Unable to locate credentials); give another --out."
    assert (outcome.status, outcome.err) == (2, f"iqa-robust: {sentence}\n")


def test_a_data_root_that_does_not_answer_is_a_wrong_request(cli, track: Path, tmp_path: Path) -> None:
    outcome = cli("run", track, "--data-root", "refusing://data", "--out", tmp_path / "out")
    assert (outcome.status, outcome.err) == (2, f"iqa-robust: --data-root refusing://data: {ANSWER}\n")
    assert not (tmp_path / "out").exists()
