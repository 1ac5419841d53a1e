"""One function opens what rows name: nothing outside the root, through no link that leads out, nothing but files."""

import os

import pytest

from infimmr_jax.data.records import DataError
from infimmr_jax.data.roots import open_below, open_resolved, resolve_below


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("inside")
    (tmp_path / "secret.txt").write_text("outside")
    return folder


def read(root, name):
    with open_below(root, name) as file:
        return file.read().decode()


def test_files_below_the_root_are_opened_also_by_links_that_stay_inside(root):
    (root / "link.txt").symlink_to("sub/a.txt")
    (root / "folder").symlink_to("sub")
    for name in ("sub/a.txt", "sub/../sub/a.txt", "link.txt", "folder/a.txt", str(root / "sub" / "a.txt")):
        assert read(root, name) == "inside"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.txt", "leads outside"),
        ("/etc/hostname", "leads outside"),
        ("out.txt", "leads outside"),
        ("away/secret.txt", "leads outside"),
        ("loop", "can not be followed|there is no"),
        ("none.txt", "there is no path"),
        ("a\x00b", "can not be followed"),
        ("x" * 5000, "can not be followed"),
        ("sub", "is not a regular file|can not be opened"),
        ("pipe", "is not a regular file"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(root, name, reason):
    (root / "out.txt").symlink_to(root.parent / "secret.txt")
    (root / "away").symlink_to("..")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    with pytest.raises(DataError, match=reason):
        read(root, name)


@pytest.mark.parametrize("swapped", ["a.txt", "sub"])
def test_what_was_swapped_for_a_link_after_the_check_is_not_followed(root, swapped):
    path = resolve_below(root, "sub/a.txt")
    away = root.parent / "away"
    away.mkdir()
    (away / "a.txt").write_text("outside")
    if swapped == "sub":
        (root / "sub").rename(root / "before")
        (root / "sub").symlink_to(away)
    else:
        path.unlink()
        path.symlink_to(away / "a.txt")
    with pytest.raises(DataError, match="a symbolic link stands where none was"):
        open_resolved(path)
