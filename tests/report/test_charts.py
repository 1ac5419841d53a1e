"""Chart descriptions against the rows they come from."""

import dataclasses
import itertools

import numpy as np
import pytest
from fake_runs import make_run

from infimmr_jax.report.charts import MAX_POINTS, comparison_charts, phase_marks, run_charts, smooth, thin
from infimmr_jax.report.reading import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("charts") / "run", steps=20))


def chart(charts, title):
    return next(one for one in charts if one["title"] == title)


def test_every_metric_of_the_run_is_drawn_over_its_step(run):
    charts = run_charts(run)["grpo"]
    reward = chart(charts, "Reward")
    assert reward["xs"] == list(range(60))
    assert [one["label"] for one in reward["series"]] == ["total", "accuracy", "format"]
    assert reward["series"][1]["raw"] == pytest.approx([row["reward/accuracy"] for row in run.grpo], rel=1e-4)
    titles = {one["title"] for one in charts}
    assert {"Entropy", "KL to the reference", "Clipped tokens", "Gradient norm", "Rollout efficiency"} <= titles
    assert all(len(one["xs"]) == len(series["values"]) for one in charts for series in one["series"])


def test_metrics_nobody_planned_for_get_a_chart(run):
    rows = [{**row, "reward/overlong": -0.1, "policy/visual_share": 0.2, "note": "text"} for row in run.grpo]
    charts = run_charts(dataclasses.replace(run, grpo=rows))
    assert "overlong" in [one["label"] for one in chart(charts["grpo"], "Reward")["series"]]
    assert [one["title"] for one in charts["more"]] == ["policy/visual_share", "cold start: time/step"]
    assert charts["more"][0]["series"][0]["label"] == "visual_share"


def test_what_is_measured_now_and_then_is_not_smoothed(run):
    rows = [{**row, "heldout/image": row["step"] / 100} if row["step"] % 10 == 9 else row for row in run.grpo]
    heldout = chart(run_charts(dataclasses.replace(run, grpo=rows))["grpo"], "Held-out accuracy during training")
    assert [one["label"] for one in heldout["series"]] == ["image alone"]
    assert heldout["series"][0]["values"][9::10] == pytest.approx([0.09, 0.19, 0.29, 0.39, 0.49, 0.59])
    assert "raw" not in heldout["series"][0]


def test_phases_are_marked_where_they_begin(run):
    expected = [
        {"at": 0, "label": "1 text"},
        {"at": 20, "label": "2 image + caption"},
        {"at": 40, "label": "3 image alone"},
    ]
    assert phase_marks(run.grpo) == expected
    assert chart(run_charts(run)["grpo"], "Entropy")["marks"] == expected


def test_time_parts_add_up_to_the_step(run):
    times = chart(run_charts(run)["grpo"], "Where the time goes")
    total = np.sum([one["values"] for one in times["series"]], axis=0)
    assert total == pytest.approx([row["time/step"] for row in run.grpo], rel=1e-3)
    # The first step took 30 s to compile; it must not flatten the others.
    assert times["top"] < 4


def test_distributions_are_shares_of_a_step_whatever_its_range(run):
    lengths = chart(run_charts(run)["grpo"], "Lengths of the responses")
    first = run.grpo[0]["histogram/length"]["counts"]
    assert lengths["heat"][0] == pytest.approx(np.asarray(first) / sum(first), rel=1e-4)
    assert lengths["range"] == [0, 40]
    assert lengths["series"][0]["values"] == pytest.approx([row["response/length"] for row in run.grpo], rel=1e-4)
    # A phase with twice the limit: its first half of bins holds what was in the first quarter of the range.
    longer = {"low": 0, "high": 80, "counts": [4, 0, 0, 0]}
    rows = [{**row, "histogram/length": {"low": 0, "high": 40, "counts": [1, 1, 2, 0]}} for row in run.grpo[:3]]
    rows.append({**run.grpo[3], "histogram/length": longer})
    mixed = chart(run_charts(dataclasses.replace(run, grpo=rows))["grpo"], "Lengths of the responses")
    assert mixed["heat"] == [pytest.approx([0.5, 0.5, 0, 0])] * 3 + [pytest.approx([1, 0, 0, 0])]


def test_many_steps_share_the_columns_of_a_distribution(run):
    rows = [{**row, "step": step} for step, row in enumerate(itertools.islice(itertools.cycle(run.grpo), 500))]
    charts = run_charts(dataclasses.replace(run, grpo=rows))["grpo"]
    cells = chart(charts, "Rewards of the responses")["heat"]
    assert len(cells) == 100
    assert np.sum(cells, axis=1) == pytest.approx(np.ones(100), rel=1e-3)


def test_heldout_accuracy_has_intervals_and_stage_names(run):
    (heldout,) = run_charts(run)["heldout"]
    assert heldout["labels"] == ["cold start", "1 text", "2 image + caption", "3 image alone"]
    image = heldout["series"][2]
    assert image["label"] == "image alone"
    assert all(
        low < value < high for low, value, high in zip(image["low"], image["values"], image["high"], strict=True)
    )


def test_a_run_that_has_barely_begun_has_few_charts(run):
    empty = dataclasses.replace(run, grpo=[], evals=[], sft=run.sft[:1])
    charts = run_charts(empty)
    assert charts["grpo"] == []
    assert charts["heldout"] == []
    assert chart(charts["sft"], "loss per token, in nats")["xs"] == [0]


def test_non_finite_values_become_gaps(run):
    rows = [dict(row) for row in run.grpo]
    rows[3]["policy/kl"] = None
    rows[4]["policy/kl"] = float("inf")
    assert chart(run_charts(dataclasses.replace(run, grpo=rows))["grpo"], "KL to the reference")["series"][0]["raw"][
        3:5
    ] == [
        None,
        None,
    ]


def test_smoothing_is_a_moving_mean_inside_each_phase():
    values = [0.0] * 40 + [10.0] * 40
    assert smooth(values, ["a"] * 40 + ["b"] * 40) == values
    noisy = list(np.random.default_rng(0).normal(size=80))
    result = smooth(noisy, ["a"] * 80)
    assert result[40] == pytest.approx(np.mean(noisy[38:43]))
    assert smooth([1.0, None, 3.0], ["a"] * 3) == [1.0, None, 3.0]


def test_long_runs_are_thinned_evenly():
    rows = [{"step": step} for step in range(5000)]
    kept = thin(rows)
    assert len(kept) <= MAX_POINTS
    assert {b["step"] - a["step"] for a, b in itertools.pairwise(kept)} == {4}
    assert thin(rows[:100]) == rows[:100]


def test_comparison_aligns_runs_of_different_lengths(run, tmp_path):
    short = read_run(make_run(tmp_path / "short", steps=5, sft_steps=0))
    charts = comparison_charts([run, short], ["a", "b"])
    reward = chart(charts, "Reward: accuracy")
    assert [one["label"] for one in reward["series"]] == ["a", "b"]
    assert reward["xs"] == list(range(60))
    assert reward["series"][1]["values"][15:] == [None] * 45
    assert None not in reward["series"][1]["values"][:15]
