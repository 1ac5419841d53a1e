"""The Markdown table in the layout of the paper's."""

from infimmr_jax.evaluation.markdown import results_markdown


def result(benchmark, title, accuracy, model="mine", **more):
    row = {"accuracy": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02}
    return {
        "benchmark": benchmark,
        "title": title,
        "protocol": "rules of the house",
        "judge": "rules",
        "problems": 3040,
        "responses_per_problem": 1,
        **row,
        "pass_at": {"1": row},
        "maj_at": {"1": row},
        "unformatted": 0.05,
        "truncated": 0.01,
        "mean_tokens": 123.4,
        "grader_failures": {"the grader timed out": 2},
        "groups": {"level": {"1": {"problems": 237, **row}, "a|b": {"problems": 1, **row}}},
        "summary": {},
        "paper": None,
        "request": {"model": model, "greedy": True, "style": "plain"},
    } | more


def test_one_line_a_model_beside_the_papers_numbers():
    text = results_markdown(
        [
            result("mathvision", "MathVision (test)", 0.2512),
            result("mathvista", "MathVista (testmini)", 0.61),
            result("math500", "MATH-500", 0.5, model="other"),
        ]
    )
    lines = text.splitlines()
    assert (
        lines[0]
        == "| model | MathVerse (testmini) | MathVision (test) | OlympiadBench | MathVista (testmini) | MATH-500 |"
    )
    assert lines[2] == "| Infi-MMR-3B (paper) | 43.68 | 27.04 | 21.33 | 67.20 | – |"
    assert lines[3] == "| mine | – | 25.12 (23.1–27.1) | – | 61.00 (59.0–63.0) | – |"
    assert lines[4] == "| other | – | – | – | – | 50.00 (48.0–52.0) |"


def test_details():
    text = results_markdown([result("mathvision", "MathVision (test)", 0.25)])
    assert "## MathVision (test): mine" in text
    for line in ("- responses: greedy", "- without a readable answer: 5.0%", "- mean tokens of a response: 123.4"):
        assert line in text
    assert "- the grader timed out: 2" in text
    assert "| 1 | 237 | 25.00 (23.0–27.0) |" in text
    assert "a\\|b" in text
    assert "pass@k" not in text


def test_which_of_two_published_prompts_and_which_model_files():
    request = {"model": "mine", "greedy": True, "style": "published", "model_sha256": "0123456789abcdef" * 4}
    text = results_markdown([result("mathverse", "MathVerse (testmini)", 0.25, request=request)])
    assert "- prompt: published (query_wo: answer directly, as for the leaderboard's w/o score)\n" in text
    assert "- model files: sha256 0123456789abcdef\n" in text
    request = {**request, "style": "published-cot"}
    text = results_markdown([result("mathverse", "MathVerse (testmini)", 0.25, request=request)])
    assert "- prompt: published-cot (query_cot: reason first, " in text
    text = results_markdown([result("math500", "MATH-500", 0.25, request=request | {"style": "published"})])
    assert "- prompt: published\n" in text


def test_sampled_and_stored_responses():
    row = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    sampled = {"pass_at": {"1": row, "2": row}, "maj_at": {"1": row, "2": row}, "responses_per_problem": 2}
    text = results_markdown(
        [result("wemath", "We-Math (testmini)", 0.5, **sampled, request=None, summary={"score": 0.25})]
    )
    assert "| pass@k | 50.00 (40.0–60.0) | 50.00 (40.0–60.0) |" in text
    assert "| stored responses | " in text
    assert "- responses: 2 a problem, stored" in text
    assert "| score | 0.25 |" in text
    text = results_markdown([result("math500", "MATH-500", 0.5, request={"model": "some.jsonl"})])
    assert "- responses: 1 a problem, stored\n- prompt: as stored\n" in text
