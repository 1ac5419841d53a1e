"""Progress and the final table, as a person reads them."""

import io
import re

from rich.console import Console

from infimmr_jax.training.progress import Progress, describe, duration, final_table


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def text_of(table, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def run_plain(seconds_per_step, steps=30):
    clock, out = Clock(), io.StringIO()
    with Progress(Console(file=out, width=60, force_terminal=False), clock) as progress:
        progress.phase("3 image [alone]", total=steps)
        progress.activity("compiling")
        for step in range(steps):
            clock.now += seconds_per_step
            progress.update({"reward/total": step / steps, "tokens_per_second": 12345.6})
    return out.getvalue().splitlines()


def test_without_a_terminal_one_plain_line_every_ten_seconds():
    lines = run_plain(seconds_per_step=2.0)
    assert lines[0] == "3 image [alone]: 30 steps"
    assert lines[1] == "3 image [alone]: compiling"
    assert [re.search(r"(\d+)/30", line)[1] for line in lines[2:]] == ["5", "10", "15", "20", "25", "30"]
    assert lines[2] == "3 image [alone] 5/30  reward 0.13  12,346 tok/s  10s, 50s left"
    assert lines[-1].endswith("1m00s")


def test_plain_lines_are_not_more_than_the_steps():
    assert len(run_plain(seconds_per_step=60.0, steps=4)) == 2 + 4


def test_time_left_ignores_the_compiling_first_step_and_counts_down():
    clock = Clock()
    progress = Progress(Console(file=io.StringIO(), force_terminal=False), clock)
    progress.phase("p", total=10)
    assert progress.time_left() is None
    for seconds in (60.0, 3.0, 3.0):
        clock.now += seconds
        progress.update({})
    assert progress.time_left() == 7 * 3.0
    clock.now += 1.0
    assert progress.time_left() == 20.0


def test_live_bars_keep_finished_phases_and_show_the_resumed_count():
    out = io.StringIO()
    with Progress(Console(file=out, width=100, force_terminal=True)) as progress:
        progress.phase("cold start", total=2)
        progress.update({"loss": 1.25})
        progress.update({"loss": 0.5})
        progress.phase("1 text", total=5, done=3)
        progress.activity("compiling")
        progress.update({"reward/total": 0.75})
        progress.note("a line that stays")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).split("a line that stays")[-1]
    assert re.search(r"✓ cold start .* 2/2 loss 0.500", last)
    assert re.search(r"1 text .* 4/5 reward 0.75", last)
    assert "compiling" not in last


def test_describe_and_duration():
    assert describe({"loss": 0.1234}) == "loss 0.123"
    assert describe({"loss": None}) == ""
    assert [duration(seconds) for seconds in (3.4, 185, 7620)] == ["3s", "3m05s", "2h07m"]


def eval_row(index, stage, modality, correct):
    return {"stage": stage, "stage_index": index, "modality": modality, "problems": 200, "correct": correct} | {
        "accuracy": correct / 200,
        "low": correct / 200 - 0.05,
        "high": correct / 200 + 0.05,
        "format_rate": 0.985,
    }


def test_final_table_has_stages_modalities_intervals_and_gain():
    rows = [eval_row(0, "cold start", "image", 60), eval_row(0, "cold start", "text", 100)]
    rows += [eval_row(2, "[image]", "image", 111), eval_row(1, "text", "text", 120), eval_row(1, "text", "image", 62)]
    text = text_of(final_table(rows))
    assert "200 problems" in text
    assert "caption" not in text
    lines = [line for line in text.splitlines() if re.search(r"cold start |│ text  |\[image\]", line)]
    assert len(lines) == 4
    assert "50.0%  45.0–55.0" in lines[0]
    assert "30.0%  25.0–35.0" in lines[0]
    assert "60.0%" in lines[1]
    assert "55.5%  50.5–60.5" in lines[2]
    assert re.search(r"gain over cold start\W+-\W+\+25\.5 points", lines[3])
    assert text.count("format 98%") == 5


def test_final_table_of_an_unfinished_run():
    assert "gain" not in text_of(final_table([eval_row(0, "cold start", "image", 60)]))
    assert "after" in text_of(final_table([]))
