"""Rejection sampling: what is kept, what goes on after a kill, and that the cold start reads what was written."""

import json

import numpy as np
import pytest
from tiny import tiny_config

from infimmr_jax.commands import rejection
from infimmr_jax.commands.rejection import chosen, rejection_sample
from infimmr_jax.config import DataSection
from infimmr_jax.data.conversations import read_conversations
from infimmr_jax.data.records import DataError
from infimmr_jax.preprocess.demonstrations import plan_conversation
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.policy import Answers, Sampling, load_policy

SAMPLING = Sampling(samples=4, max_tokens=8, temperature=1.0)


def test_the_shortest_right_answer_or_all_different_ones_are_kept():
    texts, lengths = ["long right", "wrong", "right", "right", "tie"], [9, 1, 4, 4, 4]
    right = [True, False, True, True, True]
    assert chosen(texts, right, lengths, "shortest") == [2]
    assert chosen(texts, right, lengths, "all") == [0, 2, 4]
    assert chosen(texts, [False] * 5, lengths, "shortest") == []


@pytest.fixture
def asked(policy_directory, tmp_path, monkeypatch):
    """The run, a policy whose answers are made up, and the ids of the problems it was asked."""
    config = tiny_config(tmp_path / "run", "sft=null", "evaluation={}")
    seen: list[str] = []
    golds: dict[str, str] = {}

    def answer(policy, plans, settings, rows, seed):
        seen.extend(plan.name for plan in plans)
        texts = []
        for plan in plans:
            good = f"<think> so</think>\\boxed{{{golds[plan.name]}}}"
            texts.append([good + " ", good, f"\\boxed{{{golds[plan.name]}}}", "<think> a</think>\\boxed{-77}"])
        P = len(plans)
        return Answers(texts, np.ones((P, 4), bool), np.tile([7, 6, 3, 5], (P, 1)))

    monkeypatch.setattr(rejection, "answer", answer)
    problems = rejection._problems

    def remember(*arguments):
        found = problems(*arguments)
        golds.update({problem.id: problem.answer for problem in found})
        return found

    monkeypatch.setattr(rejection, "_problems", remember)
    return config, load_policy(config, policy_directory), seen


def test_right_answers_become_conversations_and_a_stopped_call_goes_on(asked, tmp_path):
    config, policy, seen = asked
    out = tmp_path / "out"
    with GraderPool() as pool:

        def call(limit=3):
            return rejection_sample(config, policy, pool, SAMPLING, out, "shortest", 2, lambda line: None, limit)

        counts = call()
        assert counts == {"problems": 9, "solved": 9, "demonstrations": 9}
        demonstrations = [json.loads(line) for line in (out / "demonstrations.jsonl").read_text().splitlines()]
        assert {row["tokens"] for row in demonstrations} == {6}, "shorter ones lack the format"
        sampled = [json.loads(line) for line in (out / "sampled.jsonl").read_text().splitlines()]
        assert {row["pass_rate"] for row in sampled} == {0.75}
        whole = (out / "demonstrations.jsonl").read_bytes(), (out / "sampled.jsonl").read_bytes()

        # A kill in the middle of the last batch: demonstrations written, the line of their problem half written.
        lines = whole[1].splitlines(keepends=True)
        (out / "sampled.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
        asked_before = len(seen)
        assert call() == counts
        assert len(seen) == asked_before + 1
        assert ((out / "demonstrations.jsonl").read_bytes(), (out / "sampled.jsonl").read_bytes()) == whole
        assert call() == counts
        assert len(seen) == asked_before + 1, "nothing is left to ask"

        other = Sampling(samples=2, max_tokens=8, temperature=1.0)
        with pytest.raises(DataError, match="holds samples of"):
            rejection_sample(config, policy, pool, other, out, "shortest", 2, lambda line: None, 3)

    # What was written is what the cold start reads: same prompts, the kept text as the one thing that is learnt.
    kept, rejected = read_conversations(out / "demonstrations.jsonl", 1, config.data.image)
    assert not rejected
    assert sum(bool(conversation.images) for conversation in kept) == 6
    data = DataSection.model_validate({"max_images": 1, "image": {"max_pixels": 12544}})
    for conversation in kept[::4]:
        plan = plan_conversation(conversation, policy.tokenizer, policy.model.tokens.eos, policy.layout, data)
        said = policy.tokenizer.decode(plan.plan.tokens[plan.learnt])
        assert said == conversation.turns[-1].text + "<|im_end|>"
