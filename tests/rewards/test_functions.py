"""Functions of users in processes: whatever they do is a sentence, in time, and leaves the trainer alone."""

import os
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from infimmr_jax.config import FunctionsSection, JudgeSection, RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.components import check_components
from infimmr_jax.rewards.functions import Failure, FunctionPool, grader_environment
from infimmr_jax.rewards.group import Group, group_from_json, group_to_json
from infimmr_jax.rewards.judge import judge_scores, load_judge
from infimmr_jax.rewards.judging import JudgeError, JudgeRequest
from infimmr_jax.rewards.loading import LoadError, load_callable

HOSTILE = """
import math, os, signal, subprocess, sys, threading, time
import numpy as np
def n(g): return len(g.responses)
def ok(g): return [0.5] * n(g)
def array(g): return g.lengths * 2.0
def gen(g): return (1.0 for _ in range(n(g)))
def nones(g): return [None] * n(g)
def nan(g): return [math.nan] * n(g)
def raises(g): raise RuntimeError("boom")
def keyerr(g): return {}["x"]
def exits(g): sys.exit(0)
def says_bye(g): raise SystemExit("bye")
def hard_exit(g): os._exit(3)
def killed(g): os.kill(os.getpid(), signal.SIGKILL)
def interrupted(g): raise KeyboardInterrupt
def loop(g):
    while True: pass
def sleeps(g): time.sleep(100)
def mem(g): return [bytearray(10**11)] * n(g)
def recur(g): return recur(g)
def prints(g): print("HELLO", flush=True); os.write(1, b"raw"); return [0.5] * n(g)
def strs(g): return ["1.0"] * n(g)
def text(g): return "1111"
def none(g): return None
def twod(g): return np.zeros((n(g), 2))
def cplx(g): return [1j] * n(g)
def big(g): return [10**400] * n(g)
def fork(g):
    os.fork()
    return [0.5] * n(g)
def chdir(g): os.chdir("/"); return [0.5] * n(g)
def closes(g): os.closerange(0, 3); return [0.5] * n(g)
def thread(g): threading.Thread(target=lambda: time.sleep(1000)).start(); return [0.5] * n(g)
def child(g): subprocess.Popen(["sleep", "1000"]); return [0.5] * n(g)
def reads(g): return [float(len(input()))] * n(g)
def environment(g): return [float("SECRET_KEY" in os.environ), float("ALLOWED" in os.environ)]
def trainer(g): return [float("jax" in sys.modules)] * n(g)
class Cls:
    def __init__(self, g): pass
not_a_function = 5
def judge(requests): return [1.0 if r.gold in r.response else None for r in requests]
def silent(requests): raise RuntimeError("no judge today")
"""
HALF = [0.5, 0.5]
EXPECTED: dict[str, list[float] | str] = {
    "ok": HALF,
    "array": [4.0, 6.0],
    "gen": [1.0, 1.0],
    "prints": HALF,
    "fork": HALF,
    "chdir": HALF,
    "closes": HALF,
    "thread": HALF,
    "child": HALF,
    "trainer": [0.0, 0.0],
    "raises": "RuntimeError: boom (line",
    "keyerr": "KeyError: 'x' (line",
    "exits": "SystemExit: 0 (line",
    "says_bye": "SystemExit: bye (line",
    "hard_exit": "its process ended (3)",
    "killed": "its process ended (-9)",
    "interrupted": "KeyboardInterrupt",
    "loop": "longer than 1 seconds",
    "sleeps": "longer than 1 seconds",
    "mem": "more memory than it may",
    "recur": "RecursionError",
    "strs": "a str among its numbers",
    "text": "it returned str, not a number for each response",
    "none": "it returned NoneType, not a number for each response",
    "twod": "a ndarray among its numbers",
    "cplx": "a complex among its numbers",
    "big": "OverflowError",
    "reads": "EOFError",
    "Cls": "it returned Cls, not a number for each response",
}
GROUP = Group(
    Problem("p", "q", "5", "math", images=(b"\x89PNG", "a.png"), choices=("a",), extra={"n": np.float32(2), "b": b"x"}),
    ("5", "6 \ud800"),
    ("5", None),
    np.asarray([True, False]),
    np.asarray([2, 3]),
    {"accuracy": np.asarray([1, 0], np.float32)},
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "my rewards.py"
    path.write_text(HOSTILE)
    return path


@pytest.fixture(scope="module")
def functions() -> Iterator[FunctionPool]:
    pool = FunctionPool(workers=1)
    yield pool
    pool.close()


SECTION = FunctionsSection(deadline_seconds=1, memory_mb=256)


@pytest.mark.parametrize("name", EXPECTED)
def test_whatever_a_function_does_is_numbers_or_a_sentence(name: str, file: Path, functions: FunctionPool) -> None:
    here, expected = os.getcwd(), EXPECTED[name]
    answers = functions.call(f"{file}:{name}", "reward.weights", "group", [group_to_json(GROUP)] * 2, SECTION)
    for answer in answers:
        if isinstance(expected, str):
            assert isinstance(answer, Failure)
            assert expected in answer.why
        else:
            assert answer == expected
    assert os.getcwd() == here


def test_what_is_no_number_is_left_to_the_trainer(file: Path, functions: FunctionPool) -> None:
    for name in ("nan", "nones"):
        (answer,) = functions.call(f"{file}:{name}", "reward.weights", "group", [group_to_json(GROUP)], SECTION)
        assert np.isnan(answer).all()


def test_only_named_variables_are_passed_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "s")
    monkeypatch.setenv("ALLOWED", "a")
    pool = FunctionPool()
    section = FunctionsSection(environment=("ALLOWED",))
    try:
        name = f"{file}:environment"
        assert pool.call(name, "reward.weights", "group", [group_to_json(GROUP)], section) == [[0.0, 1.0]]
    finally:
        pool.close()
    given = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "y", "LC_ALL": "C", "http_proxy": "z"}
    assert grader_environment(given=given) == {"PATH": "/bin", "LC_ALL": "C"}


def test_nothing_is_left_behind(file: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    pool = FunctionPool(workers=2)
    pool.call(f"{file}:child", "reward.weights", "group", [group_to_json(GROUP)] * 4, SECTION)
    assert len(set(psutil.Process().children(recursive=True)) - before) >= 3
    pool.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and set(psutil.Process().children(recursive=True)) - before:
        time.sleep(0.05)
    assert not set(psutil.Process().children(recursive=True)) - before


IMPORTS = {
    "raises.py": ('raise ValueError("at import")', r"can not be imported: ValueError: at import \(line 1 of"),
    "exits.py": ("import sys; sys.exit(5)", "can not be imported: SystemExit: 5"),
    "missing.py": ("import nonexistent_zzz", "No module named 'nonexistent_zzz'"),
    "syntax.py": ("def f(:", "can not be imported: SyntaxError"),
    "encoding.py": (b"NAME = '\xff'\ndef f(g): return []\n", "can not be imported: SyntaxError"),
    "gone.py": ("import os; os._exit(4)", r"loading it ended its process \(4\)"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_a_module_that_can_not_be_imported_is_a_sentence(name: str, tmp_path: Path) -> None:
    text, said = IMPORTS[name]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LoadError, match=said):
        check_components(RewardSection(weights={f"{tmp_path / name}:f": 1.0}))
    if "gone" not in name:  # that one would take this process along
        with pytest.raises(LoadError, match=said):
            load_callable(f"{tmp_path / name}:f", "reward.weights")


def test_a_file_finds_the_files_beside_it(tmp_path: Path, functions: FunctionPool) -> None:
    (tmp_path / "beside_it_zz.py").write_text("VALUE = 3.0\n")
    text = """
        from beside_it_zz import VALUE
        def f(group): return [VALUE] * len(group.responses)
        """
    (tmp_path / "reward.py").write_text(textwrap.dedent(text))
    name = f"{tmp_path / 'reward.py'}:f"
    assert RewardSection(weights={name: 1.0}).weights == {name: 1.0}
    assert functions.call(name, "reward.weights", "group", [group_to_json(GROUP)], SECTION) == [[3.0, 3.0]]


def test_a_group_travels_as_it_is() -> None:
    other = group_from_json(group_to_json(GROUP))
    assert other.problem.images == GROUP.problem.images
    assert (other.problem.extra, other.problem.choices) == ({"n": 2.0, "b": b"x"}, ("a",))
    assert (other.responses, other.extracted) == (GROUP.responses, GROUP.extracted)
    for name in ("finished", "lengths"):
        np.testing.assert_array_equal(getattr(other, name), getattr(GROUP, name))
    np.testing.assert_array_equal(other.components["accuracy"], [1, 0])


def test_a_judge_that_is_a_function_runs_in_a_process_too(file: Path, functions: FunctionPool) -> None:
    requests = [JudgeRequest("q", "5", text, None, GROUP.problem) for text in ("it is 5", "no")]
    judge = load_judge(JudgeSection(function=f"{file}:judge"), functions, SECTION)
    np.testing.assert_array_equal(judge(requests), [1.0, np.nan])
    silent = load_judge(JudgeSection(function=f"{file}:silent"), functions, SECTION)
    with pytest.raises(JudgeError, match=r":silent failed on 2 responses: RuntimeError: no judge today"):
        judge_scores(silent, requests, Counter())
