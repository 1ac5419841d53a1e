"""Running an evaluation: repetition, kill and resume, stored responses."""

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from published_forms import write_json, write_jsonl

from infimmr_jax.data.records import DataError
from infimmr_jax.evaluation.benchmarks import BENCHMARKS
from infimmr_jax.evaluation.grading import Graders
from infimmr_jax.evaluation.items import Item, Response
from infimmr_jax.evaluation.requests import Request
from infimmr_jax.evaluation.results import EvaluationError
from infimmr_jax.evaluation.runner import read_responses, run_benchmark, stored_responses

BENCHMARK = BENCHMARKS["math500"]
ITEMS = [Item(f"p{i}", f"published {i}", f"plain {i}", str(i % 4), "math", {"answer": str(i % 4)}) for i in range(11)]


@pytest.fixture(scope="module")
def graders():
    with Graders(workers=1) as pool:
        yield pool


def policy(problems, n, greedy):
    """Answers that depend on the problem alone, as a seeded sampler's."""
    groups = []
    for problem in problems:
        digits = hashlib.sha256(problem.question.encode()).digest()
        groups.append([f"<think>½</think>\\boxed{{{0 if greedy else digits[k] % 4}}}" for k in range(n)])
    return groups


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_same_evaluation_twice_gives_the_same_files(tmp_path, graders):
    request = Request("m", n=4, greedy=False)
    results = [
        run_benchmark(BENCHMARK, ITEMS, policy, request, tmp_path / name, graders, batch_size=4) for name in ("a", "b")
    ]
    assert results[0] == results[1]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == results[0]
    assert "| m | " in (tmp_path / "a" / "result.md").read_text()
    assert len((tmp_path / "a" / "grades.jsonl").read_text().splitlines()) == 11


def test_a_killed_evaluation_resumes_to_the_same_result(tmp_path, graders):
    request = Request("m", n=2, greedy=False)
    whole = run_benchmark(BENCHMARK, ITEMS, policy, request, tmp_path / "whole", graders, batch_size=3)
    asked = []

    def dies(problems, n, greedy):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append([problem.id for problem in problems])
        return policy(problems, n, greedy)

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(BENCHMARK, ITEMS, dies, request, tmp_path / "killed", graders, batch_size=3)
    with (tmp_path / "killed" / "responses.jsonl").open("ab") as file:
        file.write('{"id": "p6", "responses": [{"text": "½'.encode()[:-1])
    again = []

    def continues(problems, n, greedy):
        again.extend(problem.id for problem in problems)
        return policy(problems, n, greedy)

    seen = []
    resumed = run_benchmark(
        BENCHMARK,
        ITEMS,
        continues,
        request,
        tmp_path / "killed",
        graders,
        batch_size=3,
        on_batch=lambda *x: seen.append(x),
    )
    assert again == [f"p{i}" for i in range(6, 11)]
    assert seen == [(9, 11), (11, 11)]
    assert resumed == whole
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_batch_that_was_cut_in_two_is_asked_whole_again(tmp_path, graders):
    def of_the_batch(problems, n, greedy):
        seed = "".join(problem.id for problem in problems)
        return [[f"{hashlib.sha256((seed + problem.id).encode()).hexdigest()}"] for problem in problems]

    def run(name):
        return run_benchmark(BENCHMARK, ITEMS, of_the_batch, Request("m"), tmp_path / name, graders, batch_size=3)

    whole = run("whole")
    run("cut")
    kept = (tmp_path / "cut" / "responses.jsonl").read_bytes().splitlines(keepends=True)[:4]
    (tmp_path / "cut" / "responses.jsonl").write_bytes(b"".join(kept))
    assert run("cut") == whole
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_greedy_plain_and_published_prompts(tmp_path, graders):
    asked = []

    def greedy_policy(problems, n, greedy):
        asked.extend(problem.question for problem in problems)
        assert greedy
        return policy(problems, n, greedy)

    result = run_benchmark(BENCHMARK, ITEMS, greedy_policy, Request("m"), tmp_path / "plain", graders)
    # Every fourth answer is 0.
    assert result["accuracy"] == pytest.approx(3 / 11, abs=1e-6)
    run_benchmark(BENCHMARK, ITEMS, greedy_policy, Request("m", style="published"), tmp_path / "published", graders)
    assert asked[0] == "plain 0"
    assert asked[11] == "published 0"
    with pytest.raises(EvaluationError, match="greedy decoding gives one response a problem, not 3"):
        run_benchmark(BENCHMARK, ITEMS, policy, Request("m", n=3), tmp_path / "x", graders)


def test_responses_of_another_request_are_not_mixed_in(tmp_path, graders):
    run_benchmark(BENCHMARK, ITEMS, policy, Request("m", settings={"temperature": 1.0}), tmp_path, graders)
    with pytest.raises(EvaluationError, match=r"responses to another request \(other model, settings\)"):
        run_benchmark(BENCHMARK, ITEMS, policy, Request("n"), tmp_path, graders)
    with pytest.raises(EvaluationError, match=r"other items"):
        run_benchmark(BENCHMARK, ITEMS[1:], policy, Request("m", settings={"temperature": 1.0}), tmp_path, graders)
    other = Request("m", settings={"temperature": 1.0}, model_sha256="ff")
    with pytest.raises(EvaluationError, match=r"weights, configuration or tokenizer in m are not those that gave"):
        run_benchmark(BENCHMARK, ITEMS, policy, other, tmp_path, graders)


def test_a_generator_that_gives_too_little_is_an_error(tmp_path, graders):
    with pytest.raises(EvaluationError, match="generate gave 10 groups for 11 problems"):
        run_benchmark(BENCHMARK, ITEMS, lambda problems, n, greedy: [["x"]] * 10, Request("m"), tmp_path, graders)


def test_truncation_and_tokens_are_kept(tmp_path, graders):
    def cut(problems, n, greedy):
        return [[Response("\\boxed{0}", truncated=problem.id == "p0", tokens=4)] for problem in problems]

    result = run_benchmark(BENCHMARK, ITEMS, cut, Request("m"), tmp_path, graders)
    assert result["truncated"] == pytest.approx(1 / 11, abs=1e-6)
    assert result["mean_tokens"] == 4.0
    assert stored_responses(tmp_path / "responses.jsonl", 1)["p0"] == [Response("\\boxed{0}", True, 4)]


def test_other_hosts_generate_but_write_nothing(tmp_path, graders, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    calls = []
    result = run_benchmark(
        BENCHMARK,
        ITEMS,
        lambda p, n, g: calls.append(len(p)) or policy(p, n, g),
        Request("m"),
        tmp_path / "out",
        graders,
    )
    assert result == {}
    assert calls == [11]
    assert not (tmp_path / "out").exists()


def test_stored_responses_in_the_forms_of_the_benchmarks(tmp_path):
    def texts(path, items=ITEMS):
        return {key: [response.text for response in row] for key, row in read_responses(path, items).items()}

    rows = [{"id": "p0", "response": "a"}, {"id": "p0", "response": "b"}, {"id": "other", "response": "c"}]
    assert texts(write_jsonl(tmp_path / "a.jsonl", rows)) == {"p0": ["a", "b"]}
    several = [{"id": "p1", "responses": ["a", {"text": "b", "truncated": True, "tokens": 3}]}]
    assert texts(write_jsonl(tmp_path / "b.jsonl", several)) == {"p1": ["a", "b"]}
    assert read_responses(tmp_path / "b.jsonl", ITEMS)["p1"][1] == Response("b", True, 3)
    assert texts(write_json(tmp_path / "mathvista.json", {"p2": {"response": "x"}})) == {"p2": ["x"]}
    assert texts(write_json(tmp_path / "mathverse.json", [{"sample_index": "p3", "model_answer": "y"}])) == {
        "p3": ["y"]
    }
    composite = [Item("2steps_1/2steps_multi", "p", "q", "A", "string", {"answer": "A"})]
    row = {"ID": "2steps_1", "key": "2steps_multi", "response": "A"}
    assert texts(write_json(tmp_path / "wemath.json", [row]), composite) == {"2steps_1/2steps_multi": ["A"]}
    with pytest.raises(EvaluationError, match=r"no id is one of the benchmark's \(found 'z', expected like 'p0'\)"):
        texts(write_jsonl(tmp_path / "c.jsonl", [{"id": "z", "response": "a"}]))
    with pytest.raises(DataError, match=r"d\.jsonl, row 1: needs a key of id"):
        texts(write_jsonl(tmp_path / "d.jsonl", [{"id": "p0"}]))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (3, "the row is a int, not an object"),
        ("text", "the row is a str, not an object"),
        ({"id": "p1", "response": {"txt": "a"}}, "a response must be a text, or an object with `text`"),
        ({"id": "p1", "response": {"text": 4}}, "a response must be a text"),
        ({"id": "p1", "responses": ["a", None]}, "a response must be a text.*not 'None'"),
        ({"id": "p1", "responses": [["a"]]}, "a response must be a text"),
        ({"id": "p1", "response": {"text": "a", "truncated": "no"}}, "true or false"),
        ({"id": "p1", "response": {"text": "a", "tokens": "9"}}, "a whole number"),
    ],
)
def test_stored_responses_that_are_none_are_named(tmp_path, row, sentence):
    path = write_jsonl(tmp_path / "r.jsonl", [{"id": "p0", "response": "a"}, row])
    with pytest.raises(DataError, match=rf"r\.jsonl, row 2: .*{sentence}"):
        read_responses(path, ITEMS)


def test_a_file_without_responses_and_a_broken_own_file_are_said(tmp_path):
    with pytest.raises(EvaluationError, match="holds no responses"):
        read_responses(write_json(tmp_path / "empty.json", []), ITEMS)
    (tmp_path / "responses.jsonl").write_text('{"id": "p0"}\n')
    with pytest.raises(DataError, match=r"responses\.jsonl holds a line that this program did not write"):
        stored_responses(tmp_path / "responses.jsonl", 1)


HOST = """
import sys
import jax
from pathlib import Path
from infimmr_jax.evaluation.grading import Graders
from infimmr_jax.evaluation.requests import Request
from infimmr_jax.evaluation.runner import run_benchmark
from test_runner import BENCHMARK, ITEMS, policy

def main():
    address, process, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    jax.distributed.initialize(address, 2, process)
    asked = []
    def generate(problems, n, greedy):
        asked.extend(problem.id for problem in problems)
        return policy(problems, n, greedy)
    with Graders() as graders:
        # Only process 0's directory holds what an earlier run left; the other one's does not exist.
        directory = Path(out) / str(process)
        result = run_benchmark(BENCHMARK, ITEMS, generate, Request("m"), directory, graders, batch_size=4)
    print("asked", len(asked), bool(result))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_two_hosts_agree_on_what_is_left(tmp_path, graders):
    whole = run_benchmark(BENCHMARK, ITEMS, policy, Request("m"), tmp_path / "whole", graders, batch_size=4)
    (tmp_path / "0").mkdir()
    kept = (tmp_path / "whole" / "responses.jsonl").read_bytes().splitlines(keepends=True)[:5]
    (tmp_path / "0" / "responses.jsonl").write_bytes(b"".join(kept))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script = tmp_path / "host.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n" + HOST)
    hosts = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(process), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [host.communicate(timeout=120) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [out.splitlines()[-1:] for out, _ in outputs] == [["asked 7 True"], ["asked 7 False"]], outputs
    assert json.loads((tmp_path / "0" / "result.json").read_text()) == whole
    assert not (tmp_path / "1").exists()
