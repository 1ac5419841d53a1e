"""What may differ between a saved run and one that goes on: sections of phases, lists, problems of sources."""

import json
from pathlib import Path

from infimmr_jax.config import DataSection, SourceSection
from infimmr_jax.data.selection import SourceReport, select_problems
from infimmr_jax.training.differences import FREE, differences, is_below, kept_problems


class Golds:
    """Stands for a check that finds nothing wrong."""

    def __call__(self, problems):
        return [None] * len(problems)

    def under(self, reward):
        return self


def test_leaves_are_named_with_the_indices_of_lists() -> None:
    saved = {"a": [{"b": 1}, {"b": 2}], "c": [1, 2], "d": None}
    here = {"a": [{"b": 1}, {"b": 3}, {"b": 4}], "c": [1, 3], "d": {"e": 1}}
    assert differences(saved, here) == [
        "a.1.b is 2 there and 3 here",
        "a.2 is None there and {'b': 4} here",
        "c is [1, 2] there and [1, 3] here",
        "d is None there and {'e': 1} here",
    ]
    assert differences(saved, here, ("a.1", "a.2.b", "c", "d.e")) == [
        "a.2 is None there and {'b': 4} here",
        "d is None there and {'e': 1} here",
    ]


def test_a_section_of_a_phase_is_also_its_namesake_of_the_run() -> None:
    assert is_below("phases.3.reward.workers", FREE)
    assert is_below("phases.0.optimizer.learning_rate", ("optimizer.learning_rate",))
    assert is_below("phases.0.optimizer", ("optimizer",))
    assert is_below("phases.0.steps", ("phases.0.steps",))
    assert not is_below("phases.0.steps", ("steps",))
    assert not is_below("optimizer.learning_rate", ("phases.0.optimizer",))
    assert not is_below("optimizer_kind", ("optimizer",))


def test_kept_problems_name_their_source_and_change_with_it(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "question": f"{i}+1?", "answer": str(i + 1), "answer_type": "math"} for i in range(4)]
    source = SourceSection(reader="jsonl", path="rows.jsonl")

    def kept(rows: list[dict[str, str]]) -> dict[str, str]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = DataSection(root=tmp_path)
        _, report = select_problems(source, "text", data, phase="text", golds=Golds())
        return kept_problems([report, report])

    before = kept(rows)
    assert list(before) == ["text: rows.jsonl", "text: rows.jsonl #2"]
    assert before["text: rows.jsonl"].startswith("4 problems ")
    assert kept(rows) == before
    assert kept(rows[:3]) != before
    assert kept([*rows[1:], rows[0]]) != before


def test_what_is_made_as_it_is_needed_has_only_a_number() -> None:
    assert kept_problems([SourceReport("a", "synthetic", 9, 9, {}, (), {})]) == {"a: synthetic": "9 problems"}
