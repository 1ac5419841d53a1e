"""Finding files, rows and pictures, and what is said when they are not there."""

import pytest
from published_forms import picture_file, png, write_json, write_jsonl, write_parquet

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.items import MissingPicture
from infimmr_jax.evaluation.sources import find_files, lettered, picture, read_rows, unique_ids


def test_find_files_takes_the_first_pattern_that_matches(tmp_path):
    write_json(tmp_path / "data" / "testmini.json", [])
    write_json(tmp_path / "other.parquet", [])
    assert find_files(tmp_path, ["testmini.json", "*.parquet"], "X") == [tmp_path / "data" / "testmini.json"]
    assert find_files(tmp_path / "other.parquet", ["testmini.json"], "X") == [tmp_path / "other.parquet"]
    with pytest.raises(DataError, match=r"holds no file of MathVerse; looked for a\.json, b\*"):
        find_files(tmp_path, ["a.json", "b*"], "MathVerse")
    with pytest.raises(DataError, match="no file or directory"):
        find_files(tmp_path / "nowhere", ["a"], "X")


def test_rows_of_every_form(tmp_path):
    rows = [{"id": "1", "answer": "4"}, {"id": "2", "answer": "5"}]
    by_key = {"1": {"answer": "4"}, "2": {"answer": "5"}}
    for path in (
        write_json(tmp_path / "a.json", rows),
        write_jsonl(tmp_path / "a.jsonl", rows),
        write_parquet(tmp_path / "a.parquet", rows),
        write_json(tmp_path / "b.json", by_key),
    ):
        assert [row["answer"] for row in read_rows(path, ["id", "answer"])] == ["4", "5"]


def test_bad_rows_stop_the_reading_with_file_and_row(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 1}, {"idd": 2}])
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: there is no key 'id'"):
        read_rows(path, ["id"])
    path.write_text('{"id": 1}\n{"id"')
    with pytest.raises(DataError, match=r"a\.jsonl, row 2"):
        read_rows(path, ["id"])
    path.write_text("")
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(path, ["id"])


def test_pictures_are_found_beside_the_file_above_it_and_in_parquet(tmp_path):
    file = tmp_path / "data" / "test.jsonl"
    beside = picture_file(tmp_path / "data" / "1.png")
    above = picture_file(tmp_path / "images" / "2.jpg")
    assert picture("1.png", file, "row 1") == str(beside)
    assert picture("images/2.jpg", file, "row 1") == str(above)
    assert picture("2.jpg", file, "row 1") == str(above)
    assert picture({"bytes": png(), "path": "x"}, file, "row 1") == png()
    assert picture({"bytes": None, "path": "1.png"}, file, "row 1") == str(beside)
    missing = picture("none.png", file, "row 7")
    assert isinstance(missing, MissingPicture)
    assert "test.jsonl, row 7: image 'none.png' was not found" in missing.text
    with pytest.raises(DataError, match="the image is NoneType"):
        picture(None, file, "row 7")


@pytest.mark.parametrize("name", ["../../../secret.png", "images/../../secret.png", "{root}/secret.png", "link.png"])
def test_pictures_outside_the_folder_of_the_benchmark_are_not_read(tmp_path, name):
    file = tmp_path / "a" / "b" / "c" / "test.jsonl"
    secret = picture_file(tmp_path / "secret.png")
    file.parent.mkdir(parents=True)
    (file.parent / "link.png").symlink_to(secret)
    with pytest.raises(DataError, match=r"leads outside|was not found"):
        picture(name.format(root=tmp_path), file, "row 1")


def test_ids_must_differ(tmp_path):
    with pytest.raises(DataError, match="'b' occurs twice"):
        unique_ids(["a", "b", "b"], tmp_path)


def test_lettered():
    assert lettered(["x", "y"]) == "(A) x\n(B) y"
