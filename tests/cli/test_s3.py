"""Data and records in S3, through `s3fs`, on a server of this machine that speaks its protocol."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from official_layouts import clive
from PIL import Image

from iqa_robust import datasets
from iqa_robust.datasets.fetched import local_root
from iqa_robust.errors import StorageError
from iqa_robust.images import to_uint8
from iqa_robust.records import Remote, listed, read_images, read_records, remove_folder, write_atomically

pytest.importorskip("s3fs", reason="needs s3fs")
moto_server = pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors")

TRACK = """name = "stored"
version = 1
title = "A track on data in S3"
batch_size = 2

[dataset]
name = "clive"
params = { split = "all" }

[[models]]
name = "compact"
score_range = [0.0, 100.0]

[[defenses]]
name = "none"

[[defenses]]
name = "gaussian"

[[attacks]]
name = "pgd"
eps_255 = 2
steps = STEPS
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a new bucket; the store is found as a user's is, by the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", endpoint)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})  # what fsspec does when it is imported
    monkeypatch.setenv("IQA_ROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    url = f"s3://b{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(url)
    return url


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of one dataset, in the layout of its authors, with photographs."""
    root = tmp_path_factory.mktemp("data")
    clive(root / "clive", n=13)
    for i, item in enumerate(datasets.create("photos", limit=6, crop=64)):
        Image.fromarray(to_uint8(item.x).permute(1, 2, 0).numpy()).save(root / "clive" / "Images" / f"{i}.JPG", "JPEG")
    return root


def upload(folder: Path, target: Remote) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def track(tmp_path: Path, steps: int) -> Path:
    path = tmp_path / "stored.toml"
    path.write_text(TRACK.replace("STEPS", str(steps)))
    return path


def board(path: Remote | Path) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(path.read_bytes())).drop(columns="seconds")


def test_records(bucket: str) -> None:
    root = Remote(f"{bucket}/a[1]")
    write_atomically(root / "runs" / "b.json", b"one")
    assert [path.name for path in listed(root, "*.json", below=True)] == ["b.json"]
    assert [path.name for path in listed(root / "runs", "*")] == ["b.json"]
    assert (root / "runs" / "b.json").read_text() == "one"
    remove_folder(root)
    assert listed(root, "*", below=True) == []
    with pytest.raises(FileNotFoundError):
        (root / "runs" / "b.json").read_bytes()


def test_a_store_that_went_away(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(StorageError, match="the store does not answer as it should"):
        Remote(f"{bucket}/a").read_bytes()


def test_folders_that_a_console_made(bucket: str, tmp_path: Path) -> None:
    # It puts an empty object whose name ends in a slash.
    store = fsspec.filesystem("s3")
    for name, content in {"b/": b"", "b/one.txt": b"1", "b/deep/": b"", "b/deep/two.txt": b"22"}.items():
        store.pipe_file(f"{bucket}/{name}", content)
    root = Remote(bucket)
    assert [path.name for path in listed(root / "b", "*")] == ["one.txt"]
    assert [path.name for path in listed(root / "b", "*", below=True)] == ["two.txt", "one.txt"]
    copy = local_root(root, ("b",))
    files = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert files == {"b/one.txt": b"1", "b/deep/two.txt": b"22"}
    remove_folder(root / "b")
    assert store.find(bucket) == []


def test_a_run_in_s3_is_a_run_in_a_folder(cli, bucket: str, data: Path, tmp_path: Path) -> None:
    upload(data, Remote(f"{bucket}/data"))
    asked = track(tmp_path, steps=2)
    here, there = tmp_path / "out", Remote(f"{bucket}/out")
    for root, out in ((data, here), (f"{bucket}/data", there)):
        outcome = cli("run", asked, "--data-root", root, "--out", out, "--precision", "fp32")
        assert (outcome.status, outcome.err) == (0, "")
    pd.testing.assert_frame_equal(board(there / "board.csv"), board(here / "board.csv"), check_exact=True)
    names = {path.name for path in listed(there, "*", below=True)}
    assert names == {path.name for path in listed(here, "*", below=True)}
    again = cli("run", asked, "--data-root", f"{bucket}/data", "--out", there, "--precision", "fp32")
    assert "3 cells are finished already" in again.out
    for verb, option, name in (("table", "--csv", "table.csv"), ("report", "--html", "page.html")):
        outcome = cli(verb, there, option, there / name)
        assert (outcome.status, outcome.err) == (0, "")
    assert (there / "table.csv").read_bytes() == (there / "board.csv").read_bytes()
    assert (there / "page.html").read_text().startswith("<!")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_goes_on(bucket: str, data: Path, tmp_path: Path) -> None:
    upload(data, Remote(f"{bucket}/data"))
    asked = track(tmp_path, steps=30)
    there = Remote(f"{bucket}/out")

    def start(root: object, out: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "iqa_robust", "run", str(asked), "--data-root", str(root), "--out", str(out)]
        command += ["--precision", "fp32", "--workers", "2"]
        # A session of its own: the workers are killed with it, in the middle of what they write.
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    process = start(f"{bucket}/data", there)
    try:
        while not (parts := [name for name in there.below() if ".parts/" in name]):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = {name: read_images(there / name) for name in there.below() if ".parts/" in name}
    assert set(parts) <= kept.keys() and not (there / "board.csv").is_file()
    for root, out in ((f"{bucket}/data", there), (data, tmp_path / "whole")):
        again = start(root, out)
        _, errors = again.communicate(timeout=400)
        assert (again.returncode, errors) == (0, "")
    whole = board(tmp_path / "whole" / "board.csv")
    pd.testing.assert_frame_equal(board(there / "board.csv"), whole, check_exact=True)
    assert not [name for name in there.below() if ".parts/" in name]
    # What had been finished was used: the rows of every kept part are in the records, bit for bit.
    records = {record.digest: record.images.set_index("image_id") for record in read_records(there)}
    for name, rows in kept.items():
        held = records[name.split("/")[1].removesuffix(".parts")].loc[rows["image_id"]].reset_index()
        pd.testing.assert_frame_equal(held[list(rows)], rows, check_exact=True)
