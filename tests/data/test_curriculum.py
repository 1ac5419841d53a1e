"""Element i is step i: order, mixture, hosts and resumption; empty phases are errors before training."""

import json
import random
from collections import Counter

import pytest

from infimmr_jax.config import ConfigError, DataSection, SourceSection, parse_config
from infimmr_jax.data.curriculum import build_curriculum, heldout, iterate
from infimmr_jax.data.records import DataError
from infimmr_jax.rewards.golds import GoldCheck


def flat(curriculum):
    return [name for batch in ids(curriculum) for name in batch]


def rows(folder, name, count, **changes):
    items = [
        {"id": f"{name}{n}", "question": f"{name} {n}?", "answer": str(n), "answer_type": "math", **changes}
        for n in range(count)
    ]
    for n, item in enumerate(items):
        item.setdefault("level", (7 * n) % 10)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return {"reader": "jsonl", "path": f"{name}.jsonl"}


def phase(name, sources, steps=6, size=4, **more):
    return {"name": name, "modality": "text", "steps": steps, "prompts_per_step": size, "sources": sources, **more}


def build(folder, *phases, seed=0, collate=tuple, **options):
    config = parse_config({"seed": seed, "data": {"root": str(folder)}, "phases": list(phases)})
    return build_curriculum(
        config, lambda problem, modality: (problem.id, modality), collate, golds=GoldCheck(), **options
    )


def ids(curriculum):
    return [[problem.id for problem in batch.problems] for batch in iterate(curriculum)]


def test_the_steps_of_all_phases_in_order_with_their_phase(tmp_path):
    source = rows(tmp_path, "a", 30)
    curriculum = build(tmp_path, phase("one", [source], 3), phase("two", [source], 5))
    batches = list(iterate(curriculum))
    assert [batch.step for batch in batches] == list(range(8)) == list(range(curriculum.total_steps))
    assert [batch.phase_index for batch in batches] == [0] * 3 + [1] * 5
    assert [batch.step_in_phase for batch in batches] == [0, 1, 2, 0, 1, 2, 3, 4]
    assert [curriculum.phase_of(step) for step in range(9)] == [0] * 3 + [1] * 6
    assert curriculum.first_step(1) == 3
    for batch in batches:
        assert batch.batch == tuple(batch.prompts) == tuple((problem.id, "text") for problem in batch.problems)


def test_shuffling_sees_every_problem_once_an_epoch_and_reorders_each_epoch(tmp_path):
    curriculum = build(tmp_path, phase("one", [rows(tmp_path, "a", 12)], 9))
    seen = flat(curriculum)
    epochs = [seen[n : n + 12] for n in (0, 12, 24)]
    assert all(sorted(epoch) == sorted(f"a{n}" for n in range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_file_is_the_files_order_and_its_repetition(tmp_path):
    curriculum = build(tmp_path, phase("one", [rows(tmp_path, "a", 6)], 3, order="file"))
    assert flat(curriculum) == [f"a{n % 6}" for n in range(12)]


def test_easy_to_hard_sorts_by_level_with_unknown_levels_last(tmp_path):
    source = rows(tmp_path, "a", 20)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"level": None}
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    curriculum = build(tmp_path, phase("one", [source], 5, order="easy_to_hard"))
    levels = [problem.level for batch in iterate(curriculum) for problem in batch.problems]
    assert levels[:19] == sorted(levels[:19])
    assert levels[19] is None


def test_easy_to_hard_works_on_procedural_problems(tmp_path):
    source = {"reader": "synthetic", "families": ["bars", "count"], "size": 40}
    curriculum = build(tmp_path, phase("one", [source], 10, order="easy_to_hard"))
    levels = [problem.level for batch in iterate(curriculum) for problem in batch.problems]
    assert levels == sorted(levels)
    assert len(set(levels)) > 1


def test_sources_are_mixed_by_weight(tmp_path):
    sources = [rows(tmp_path, "a", 50) | {"weight": 3.0}, rows(tmp_path, "b", 7)]
    counts = Counter(name[0] for batch in ids(build(tmp_path, phase("one", sources, 100))) for name in batch)
    assert counts == {"a": 300, "b": 100}


def test_filters_leave_out_and_count(tmp_path):
    sources = [rows(tmp_path, "a", 20)]
    curriculum = build(tmp_path, phase("one", sources, 10, filters={"min_level": 3, "max_level": 6}))
    assert {problem.level for batch in iterate(curriculum) for problem in batch.problems} == {3, 4, 5, 6}
    (report,) = curriculum.report
    assert (report.read, report.kept, report.filtered) == (20, 8, {"level below 3": 6, "level above 6": 6})
    with pytest.raises(DataError, match="no problem is left"):
        build(tmp_path, phase("one", sources, filters={"answer_types": ["choice"]}))


def test_an_empty_source_names_itself_and_the_first_reason(tmp_path):
    with pytest.raises(DataError, match=r"empty\.jsonl: 3 rows, 0 kept, 3 rejected.*row 1 \(empty0\)"):
        build(tmp_path, phase("one", [rows(tmp_path, "empty", 3, answer="")]))


def test_what_the_check_refuses_is_rejected_before_training(tmp_path):
    def check(problem, modality):
        if problem.id == "a3":
            raise DataError("the prompt has 900 tokens")

    curriculum = build(tmp_path, phase("one", [rows(tmp_path, "a", 8)], 10), check=check)
    assert "a3" not in flat(curriculum)
    assert [r.reason for r in curriculum.report[0].rejected] == ["the prompt has 900 tokens"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\nno row\n" + path.read_text())
    curriculum = build(tmp_path, phase("one", [{"reader": "jsonl", "path": "a.jsonl"}], 10), check=check)
    assert [(r.row, r.id) for r in curriculum.report[0].rejected] == [(3, None), (7, "a3")]


def test_a_procedural_problem_that_the_check_refuses_is_an_error_at_once(tmp_path):
    def check(problem, modality):
        raise DataError("too long")

    source = {"reader": "synthetic", "families": ["bars"], "size": 40}
    with pytest.raises(DataError, match="too long"):
        build(tmp_path, phase("one", [source]), check=check)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_any_number_of_hosts_sees_the_same_problems_in_the_same_order(tmp_path, hosts):
    phases = [
        phase("one", [rows(tmp_path, "a", 13), rows(tmp_path, "b", 9) | {"weight": 2.0}], 7, size=8),
        phase("two", [rows(tmp_path, "c", 5)], 4, size=4),
    ]
    whole = ids(build(tmp_path, *phases))
    parts = [ids(build(tmp_path, *phases, process_index=i, process_count=hosts)) for i in range(hosts)]
    for step, problems in enumerate(whole):
        assert [problem for host in range(hosts) for problem in parts[host][step]] == problems


def test_a_process_measures_the_problems_of_the_others_to_choose_a_shape_with_them(tmp_path):
    one = phase("one", [rows(tmp_path, "a", 13)], 3, size=8)
    whole = ids(build(tmp_path, one))
    options = {"process_index": 1, "process_count": 4, "measure": lambda problem, modality: problem.id}
    for step, batch in enumerate(iterate(build(tmp_path, one, collate=lambda mine, others: others, **options))):
        assert batch.batch == whole[step][:2] + whole[step][4:]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_resuming_at_a_random_step_continues_exactly(tmp_path, hosts):
    phases = [phase("one", [rows(tmp_path, "a", 13)], 7, size=8), phase("two", [rows(tmp_path, "c", 5)], 6, size=4)]
    chooser = random.Random(hosts)
    for host in range(hosts):
        options = {"process_index": host, "process_count": hosts}
        whole = [batch.batch for batch in iterate(build(tmp_path, *phases, **options))]
        stop = chooser.randrange(1, 13)
        first = iterate(build(tmp_path, *phases, **options), threads=2, prefetch=3)
        seen = [next(first).batch for _ in range(stop)]
        state = json.loads(json.dumps(first.get_state()))
        second = iterate(build(tmp_path, *phases, **options))
        second.set_state(state)
        assert seen + [batch.batch for batch in second] == whole
        assert [batch.batch for batch in iterate(build(tmp_path, *phases, **options), stop)] == whole[stop:]


def test_the_seed_changes_the_order_and_nothing_else_does(tmp_path):
    one = phase("one", [rows(tmp_path, "a", 40)], 5)
    assert ids(build(tmp_path, one)) == ids(build(tmp_path, one))
    assert ids(build(tmp_path, one)) != ids(build(tmp_path, one, seed=1))


def test_a_phase_may_have_a_template_of_its_own(tmp_path):
    source = rows(tmp_path, "a", 8)
    phases = [phase("one", [source], 1), phase("two", [source], 1) | {"prompt": {"instruction": "Be brief."}}]
    config = parse_config({"data": {"root": str(tmp_path)}, "prompt": {"system": "Think."}, "phases": phases})
    checked = []

    def encode(problem, modality, prompt=config.prompt):
        return prompt.system, prompt.instruction

    def check(problem, modality, prompt=config.prompt):
        checked.append(prompt.instruction)

    built = build_curriculum(config, encode, list, golds=GoldCheck(), check=check)
    assert [batch.prompts[0] for batch in iterate(built)] == [("Think.", None), ("Think.", "Be brief.")]
    assert checked == [None] * 8 + ["Be brief."] * 8
    with pytest.raises(ConfigError, match=r"phases\.1\.prompt\.format"):
        parse_config({"phases": [phases[0], phases[1] | {"prompt": {"format": "boxed"}}]})


def test_a_step_must_divide_over_the_hosts(tmp_path):
    with pytest.raises(ConfigError, match=r"phases\.0\.prompts_per_step: 6 .* 4 processes"):
        build(tmp_path, phase("one", [rows(tmp_path, "a", 8)], size=6), process_count=4)


def test_heldout_is_fixed_different_and_shared_by_weight(tmp_path):
    data = DataSection(root=tmp_path)
    sources = [
        SourceSection(**rows(tmp_path, "a", 30) | {"weight": 2.0}),
        SourceSection(**rows(tmp_path, "b", 30)),
    ]
    problems, reports = heldout(sources, "text", 15, data, golds=GoldCheck())
    assert problems == heldout(sources, "text", 15, data, golds=GoldCheck())[0]
    assert Counter(problem.id[0] for problem in problems) == {"a": 10, "b": 5}
    assert len({problem.id for problem in problems}) == 15
    assert [report.kept for report in reports] == [30, 30]
    everything, _ = heldout(sources, "text", 100, data, golds=GoldCheck())
    assert len(everything) == 60


def test_heldout_fills_up_from_the_other_sources_and_drops_repetitions(tmp_path):
    data = DataSection(root=tmp_path)
    sources = [
        SourceSection(**rows(tmp_path, "a", 30)),
        SourceSection(**rows(tmp_path, "b", 9, question="the same question")),
    ]
    problems, _ = heldout(sources, "text", 20, data, golds=GoldCheck())
    assert Counter(problem.id[0] for problem in problems) == {"a": 19, "b": 1}
    made = SourceSection(reader="synthetic", families=("number_line",), split="heldout", size=3000)
    shown = [(p.question, p.caption) for p in heldout([made], "image", 200, data, golds=GoldCheck())[0]]
    assert len(set(shown)) == len(shown) == 200


def test_captions_that_hold_the_answer_are_flagged_not_dropped(tmp_path):
    from PIL import Image

    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    source = rows(tmp_path, "a", 9, images=["p.png"], caption="values 3 and 44")
    curriculum = build(tmp_path, phase("one", [source]) | {"modality": "caption"})
    (report,) = curriculum.report
    assert report.kept == 9
    assert list(report.flagged.values()) == [["a3"]]


def test_caption_dropout_moves_from_captions_to_images_alone(tmp_path):
    source = {"reader": "synthetic", "families": ["bars"], "size": 500}
    one = phase("bridge", [source], 40, size=25, caption_dropout=[0.1, 0.9]) | {"modality": "caption"}
    batches = list(iterate(build(tmp_path, one, phase("after", [source], 2) | {"modality": "image"})))
    dropped = [sum(m == "image" for m in batch.modalities) / len(batch.modalities) for batch in batches[:40]]
    assert abs(sum(dropped[:8]) / 8 - 0.17) < 0.09
    assert abs(sum(dropped[-8:]) / 8 - 0.83) < 0.09
    assert batches[3].prompts == [(p.id, m) for p, m in zip(batches[3].problems, batches[3].modalities, strict=True)]
    assert set(batches[41].modalities) == {"image"}


def test_caption_dropout_is_the_same_on_any_number_of_hosts(tmp_path):
    source = {"reader": "synthetic", "families": ["bars"], "size": 50}
    one = phase("bridge", [source], 4, size=8, caption_dropout=[0.5, 0.5]) | {"modality": "caption"}
    whole = [batch.modalities for batch in iterate(build(tmp_path, one))]
    parts = [
        [batch.modalities for batch in iterate(build(tmp_path, one, process_index=i, process_count=2))] for i in (0, 1)
    ]
    for step, modalities in enumerate(whole):
        assert [parts[0][step], parts[1][step]] == [modalities[:4], modalities[4:]]


def test_caption_dropout_outside_a_caption_phase_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="needs modality 'caption'"):
        build(tmp_path, phase("one", [rows(tmp_path, "a", 8)], caption_dropout=[0, 1]))
