"""The table of the comparison with other trainers: quotients of medians over all repeats."""

import json
import runpy
from pathlib import Path

import pytest

TABLE = runpy.run_path(str(Path(__file__).parents[2] / "studies" / "peers" / "compare.py"))["table"]


def one_round(ours: list[float], peer: list[float]) -> dict:
    return {
        "case": "step_short",
        "threads": 1,
        "ours": {"parts": {"step": {"cpu": ours, "share_of_matmul_rate": 0.5}, "input": {"cpu": [0.1]}}},
        "peer": {"parts": {"step": {"cpu": peer}}},
    }


def write(path: Path, *rounds: dict) -> Path:
    path.write_text("".join(json.dumps(found) + "\n" for found in rounds))
    return path


def test_ratios_are_quotients_of_the_medians_that_are_shown(tmp_path, capsys):
    TABLE(write(tmp_path / "results.jsonl", one_round([1, 1, 4], [6, 6, 8]), one_round([2, 2, 2], [9, 6, 7])))
    lines = capsys.readouterr().out.splitlines()
    # Ours: the median of 1, 1, 2, 2, 2, 4; the peer's: of 6, 6, 6, 7, 8, 9. The mean of the rounds would be 4.75.
    assert len(lines) == 1
    for words in (
        "ours    2.000",
        "peer    6.500",
        "ratio  3.25",
        "repeats 6, 6",
        "its rounds 6.00, 3.50",
        "share 0.50",
    ):
        assert words in lines[0]


def test_results_without_their_repeats_are_refused(tmp_path):
    old = one_round([1], [2])
    old["ours"]["parts"]["step"] = {"cpu_median": 1}
    with pytest.raises(SystemExit, match="line 2: of an older revision"):
        TABLE(write(tmp_path / "results.jsonl", one_round([1], [2]), old))
