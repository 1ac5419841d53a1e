"""Damaged and hostile files end in one sentence that names them; rows beside a bad one are read."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from infimmr_jax.data.raw_records import folder_records, printable, raw_records
from infimmr_jax.data.records import DataError


def test_a_damaged_parquet_file_is_one_sentence_wherever_a_byte_is_wrong(tmp_path):
    rows = [{"id": n, "question": f"What is {n}?", "answer": [str(n)], "image": {"bytes": b"x" * n}} for n in range(40)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    intact = path.read_bytes()
    generator = np.random.default_rng(0)
    said = []
    for _ in range(150):
        damaged = bytearray(intact)
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(damaged[: generator.integers(8, len(damaged))] if generator.random() < 0.2 else damaged)
        try:
            list(raw_records(path))
        except DataError as error:
            said.append(str(error))
    assert len(said) > 30
    assert all(str(path) in sentence and "\n" not in sentence for sentence in said)


def test_folders_are_read_in_natural_order_and_odd_names_are_names(tmp_path):
    for name in ("10", "9", "²", "1" * 30, "a"):
        (tmp_path / f"{name}.json").write_text("{}")
    (tmp_path / "out.json").symlink_to(tmp_path.parent / "secret.json")
    (tmp_path.parent / "secret.json").write_text('{"secret": 1}')
    records = [record for _, record in folder_records(tmp_path, "*.json")]
    assert [record["_file"] for record in records[:2]] == ["9.json", "10.json"]
    assert len(records) == 6
    (error,) = [record for record in records if isinstance(record, DataError)]
    assert "out.json" in str(error)
    assert "leads outside" in str(error)


def test_half_surrogates_are_written_as_escapes():
    assert printable("a\ud800b") == "a\\ud800b"


@pytest.mark.parametrize("content", [b"", b"null", b"3", b"[" * 100_000, b'{"a": 1}x'])
def test_a_json_file_that_is_no_list_of_records(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json"):
        list(raw_records(tmp_path / "a.json"))
