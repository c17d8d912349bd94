"""Records and data at URLs, on fsspec's file system in memory; it must behave as a folder does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from iqa_robust.datasets.fetched import local_root
from iqa_robust.errors import RecordError, RequestError, StorageError
from iqa_robust.records import (
    Remote,
    atomic_writer,
    listed,
    local_copy,
    place,
    remove_folder,
    write_atomically,
    write_first,
)


@pytest.fixture
def url() -> Iterator[str]:
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    remove_folder(Remote(url))


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path, url: str):
    return place(tmp_path if request.param == "folder" else url)


def test_what_is_a_place(tmp_path: Path) -> None:
    assert place("some/folder") == Path("some/folder")
    assert place(tmp_path) == tmp_path
    assert place(f"file://{tmp_path}") == tmp_path
    remote = place("s3://bucket/runs")
    assert isinstance(remote, Remote) and str(remote / "a.json") == "s3://bucket/runs/a.json"
    assert (remote / "a.json").with_suffix(".parquet") == Remote("s3://bucket/runs/a.parquet")
    assert ((remote / "a.json").name, (remote / "a.json").stem) == ("a.json", "a")


def test_written_read_listed_and_removed(root) -> None:
    file = root / "runs" / "b.json"
    assert not file.is_file()
    write_atomically(file, b"one")
    write_atomically(file, "zwei \N{GREEK SMALL LETTER ALPHA}".encode())
    write_atomically(root / "runs" / "deep" / "a.json", b"")
    with atomic_writer(root / "runs" / "c.csv") as out:
        out.write(b"1,")
        out.write(b"2\n")
    assert file.read_text() == "zwei \N{GREEK SMALL LETTER ALPHA}"
    assert (root / "runs" / "c.csv").read_bytes() == b"1,2\n"
    assert [path.name for path in listed(root / "runs", "*")] == ["b.json", "c.csv"]
    assert [path.name for path in listed(root / "runs", "*.json")] == ["b.json"]
    assert [path.stem for path in listed(root, "*.json", below=True)] == ["b", "a"]
    assert file.is_file() and (root / "runs").is_dir() and not (root / "nowhere").is_dir()
    with local_copy(file) as copy:
        assert copy.read_bytes() == file.read_bytes()
    file.unlink()
    file.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        file.unlink()
    remove_folder(root / "runs")
    remove_folder(root / "runs")
    assert listed(root, "*", below=True) == []


@pytest.mark.parametrize("links", [True, False])
def test_of_several_writers_the_first_one_stays(root, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("this file system has none")

    if not links:
        monkeypatch.setattr("os.link", no_links)
    file = root / "precision" / "a.note"
    write_first(file, b"one")
    write_first(file, b"two")
    assert file.read_text() == "one"
    assert listed(root, "*", below=True) == [file]


def test_writers_at_the_same_moment_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # All of them have looked before one writes.
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    note, texts = tmp_path / "a.note", [f"{i} " * 10_000 for i in range(32)]

    def write(text: str) -> str:
        write_first(note, text.encode())
        return note.read_text()

    with ThreadPoolExecutor(8) as pool:
        (stands,) = set(pool.map(write, texts))
    assert stands in texts
    assert list(tmp_path.iterdir()) == [note]


def test_names_that_look_like_patterns(url: str) -> None:
    for folder in ("a[1]", "a1", "b?", "bb", "c*"):
        write_atomically(Remote(url) / folder / "runs" / "x.json", b"")
    for folder in ("a[1]", "b?", "c*"):
        place = Remote(url) / folder
        assert listed(place / "runs", "*.json") == listed(place, "*.json", below=True) == [place / "runs" / "x.json"]
        remove_folder(place)
        assert listed(place, "*", below=True) == []
    left = [str(path) for path in listed(Remote(url), "*", below=True)]
    assert left == [f"{url}/a1/runs/x.json", f"{url}/bb/runs/x.json"]


def test_empty_objects_that_stand_for_folders(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the consoles of S3 make them; `test_s3.py` has real ones.
    find, ls, folder = MemoryFileSystem.find, MemoryFileSystem.ls, f"/{url.removeprefix('memory://')}/"
    mark = {"name": folder, "type": "file", "size": 0}
    write_atomically(Remote(url) / "a", b"one")
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *a, **o: {**find(*a, **o), folder: mark})
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *a, **o: [*ls(*a, **o), mark])
    assert Remote(url).below() == {"a": 3}
    assert listed(Remote(url), "*") == listed(Remote(url), "*", below=True) == [Remote(url) / "a"]


def test_a_folder_is_made_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(MemoryFileSystem, "makedirs", lambda self, path, exist_ok: made.append(path))
    folder = Remote(url) / "runs"
    for name in "ab":
        write_atomically(folder / name, b"")
    assert made == [str(folder)]
    remove_folder(Remote(url))
    write_atomically(folder / "a", b"")
    assert made == [str(folder)] * 2


def test_who_may_not_make_folders_may_still_write(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in S3 with rights below one prefix only: the bucket cannot be looked at, and a new one not be made.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "makedirs", refuse)
    write_atomically(Remote(url) / "runs" / "a", b"one")
    assert (Remote(url) / "runs" / "a").read_bytes() == b"one"


def test_nothing_is_there_when_writing_fails(root) -> None:
    with pytest.raises(ZeroDivisionError), atomic_writer(root / "c.csv") as out:
        out.write(b"half")
        raise ZeroDivisionError
    assert listed(root, "*", below=True) == []


def test_a_store_that_refuses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(StorageError) as caught:
        write_atomically(Remote(f"{url}/a"), b"")
    assert str(caught.value) == (
        f"{url}/a: cannot be written (no); what was finished is kept: free some space or choose another place, and give"
        " the same command again."
    )


def test_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(RequestError, match=r"^nosuch://a: fsspec cannot open such a URL \("):
        Remote("nosuch://a").is_file()


def test_a_folder_of_data_is_its_own_copy(tmp_path: Path) -> None:
    assert local_root(tmp_path, ("a",)) == tmp_path


def test_data_is_copied_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IQA_ROBUST_CACHE", str(tmp_path))
    for name, content in {"b/one.txt": b"1", "b/deep/two.txt": b"22", "c/three.txt": b"333"}.items():
        Remote(f"{url}/{name}").write_bytes(content)
    copy = local_root(Remote(url), ("a", "b", "c"))
    files = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert files == {"b/one.txt": b"1", "b/deep/two.txt": b"22"}
    assert list(local_root(Remote(f"{url}/nothing"), ("a",)).glob("*")) == []


def test_a_run_at_a_url_is_a_run_in_a_folder(
    cli, track: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli("run", track, "--out", tmp_path / "out").status == 0
    for i in (1, 2):  # the second shard finds what the first one left there
        outcome = cli("run", track, "--out", f"{url}/out", "--shard", f"{i}/2")
        assert outcome.status == 0, outcome.err
    assert f"{url}/out/board.csv" in outcome.out
    there, here = Remote(f"{url}/out"), tmp_path / "out"
    names = {path.name for path in listed(there, "*", below=True)}
    assert names == {path.name for path in listed(here, "*", below=True)}
    assert cli("run", track, "--out", f"{url}/out").out.count("8 cells are finished already") == 1
    assert cli("table", f"{url}/out", "--csv", tmp_path / "table.csv", "--per-image", f"{url}/images.csv").status == 0
    boards = [pd.read_csv(path).drop(columns="seconds") for path in (tmp_path / "table.csv", here / "board.csv")]
    pd.testing.assert_frame_equal(*boards, check_exact=True)
    assert Remote(f"{url}/images.csv").is_file()
    assert cli("report", f"{url}/out", "--html", tmp_path / "page.html").status == 0


def test_nothing_at_a_url(cli, url: str) -> None:
    outcome = cli("table", url)
    assert outcome.status == RecordError.exit_status
    assert outcome.err == (
        f"iqa-robust: {url}: expected run records (<digest>.json), found none; give the --out folder of a run.\n"
    )
