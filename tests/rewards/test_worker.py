"""What travels to a grader process and back."""

from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.worker import decode, encode


def test_a_question_survives_the_pipe() -> None:
    options = Options("anls", ("a", "ü\n"), ("x",), 0.1, None, (2.0, 3.0))
    question = Question("math", "gold\n\u2028", 'answer "\\x" \x00', options)
    line = encode(question)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == question
