"""Names resolve inside the root and nowhere else; case is forgiven only where it is unambiguous."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.datasets.tree import FileTree
from iqa_robust.errors import DataError


def fill(root: Path, *names: str) -> FileTree:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return FileTree(root)


def found(tree: FileTree, name: str) -> str | None:
    path = tree.find(name)
    return None if path is None else tree.relative(path)


def test_exact_name(tmp_path: Path) -> None:
    tree = fill(tmp_path, "Images/ss02 (1014).jpg", "b.png")
    assert found(tree, "Images/ss02 (1014).jpg") == "Images/ss02 (1014).jpg"
    assert found(tree, "./Images//ss02 (1014).jpg") == "Images/ss02 (1014).jpg"
    assert found(tree, "b.png") == "b.png"


def test_case_is_forgiven_in_files_and_folders(tmp_path: Path) -> None:
    tree = fill(tmp_path, "Dst_Imgs/AWGN/A.BMP")
    assert found(tree, "dst_imgs/awgn/a.bmp") == "Dst_Imgs/AWGN/A.BMP"


def test_exact_wins_over_another_case(tmp_path: Path) -> None:
    tree = fill(tmp_path, "a.png", "A.png")
    if len(os.listdir(tmp_path)) == 1:  # noqa: PTH208
        pytest.skip("needs a file system that keeps case apart")
    assert (found(tree, "a.png"), found(tree, "A.png")) == ("a.png", "A.png")


def test_ambiguous_case_is_an_error(tmp_path: Path) -> None:
    tree = fill(tmp_path, "a.png", "A.png")
    if len(os.listdir(tmp_path)) == 1:  # noqa: PTH208
        pytest.skip("needs a file system that keeps case apart")
    with pytest.raises(DataError) as error:
        tree.find("a.PNG")
    assert str(error.value) == (
        f"'a.PNG' in {tmp_path.resolve()}: matches 'A.png', 'a.png', which differ in case only;"
        " keep one of them or correct the name."
    )


@pytest.mark.parametrize("name", ["no.png", "no/a.png", "a.png/b.png", "Images", "Images/deep"])
def test_absent_is_none(tmp_path: Path, name: str) -> None:
    assert fill(tmp_path, "a.png", "Images/deep/b.png").find(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "/etc/passwd", "..", "../secret.png", "Images/../../secret.png", "Images\\a.png", "C:/a.png",
     "C:a.png", "//server/share/a.png", "a\0.png"],
)  # fmt: skip
def test_names_that_leave_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_text("outside")
    tree = fill(tmp_path / "root", "Images/a.png")
    with pytest.raises(DataError) as error:
        tree.find(name)
    assert str(error.value) == (
        f"{name!r} in {(tmp_path / 'root').resolve()}: expected a name inside this folder with forward"
        " slashes, got one that is empty, absolute, or leaves it."
    )


@given(name=st.text(alphabet="./\\aA:\0~", max_size=12))
def test_no_name_ever_leaves(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    outside = tmp_path_factory.getbasetemp() / "outside"
    tree = fill(outside / "root", "a/a", "A")
    (outside / "a").write_text("outside")
    try:
        path = tree.find(name)
    except DataError:
        return
    assert path is None or path.resolve().is_relative_to(tree.root)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_that_leave_are_refused(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    fill(outside, "a.png")
    root = tmp_path / "root"
    root.mkdir()
    link, target = ("a.png", outside / "a.png") if kind == "file" else ("Images", outside)
    (root / link).symlink_to(target)
    name, leads_to = (link, target) if kind == "file" else ("Images/a.png", outside)
    with pytest.raises(DataError) as error:
        FileTree(root).find(name)
    assert str(error.value) == (
        f"{name!r} in {root.resolve()}: a link leads outside this folder, to {leads_to.resolve()};"
        " give the folder that holds the files as root."
    )


def test_links_that_stay_and_a_linked_root_are_fine(tmp_path: Path) -> None:
    fill(tmp_path / "real", "Images/a.png")
    (tmp_path / "real" / "alias").symlink_to(tmp_path / "real" / "Images")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert found(FileTree(tmp_path / "root"), "alias/a.png") == "alias/a.png"


def test_dangling_links_and_pipes_are_absent(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    tree = FileTree(tmp_path)
    assert tree.find("gone.png") is None
    assert tree.find("pipe.png") is None


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(DataError) as error:
            FileTree(root)
        assert str(error.value) == f"{root}: expected the dataset's folder, found none; check root."
