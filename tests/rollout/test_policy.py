"""A policy asked about loose prompts: what is left is asked, in the same batches, and buckets are few."""

import dataclasses

import numpy as np
import pytest
from tiny import tiny_config

from infimmr_jax.config import RolloutSection
from infimmr_jax.data.records import DataError
from infimmr_jax.data.synthetic import make_problem
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.rollout.policy import Sampling, answer, ask, bucket_of, identity, load_policy, plan, round_up
from infimmr_jax.rollout.state import SampleSettings

LAYOUT = VisionLayout(1, 2, 3, 4, 14, 2, 2, 112, 2)


class Asked:
    """A call of `ask` about letters; the answer to a letter names its whole batch."""

    def __init__(self):
        self.batches: list[str] = []
        self.stored: dict[str, str] = {}
        self.passed: list[int] = []

    def __call__(self, letters: str, rows: int = 3) -> int:
        def reply(batch):
            self.batches.append("".join(batch))
            return [letter + " of " + "".join(batch) for letter in batch]

        def record(batch, replies):
            assert not self.stored.keys() & set(batch)
            self.stored.update(zip(batch, replies, strict=True))

        return ask(letters, [letter in self.stored for letter in letters], rows, reply, record, self.passed.append)


def test_only_what_is_left_is_asked_in_batches_that_do_not_move():
    asked, again = Asked(), Asked()
    assert asked("abcdefgh") == 8
    assert asked.batches == ["abc", "def", "gh"]
    assert asked.passed == [3, 6, 8]
    # A kill cut the second batch in two: it is asked as it was, and only what was lost is recorded.
    again.stored = {letter: asked.stored[letter] for letter in "abcd"}
    assert again("abcdefgh") == 4
    assert again.batches == ["def", "gh"]
    assert again.stored == asked.stored
    assert again("abcdefgh") == 0
    assert again("") == 0
    assert again.batches == ["def", "gh"]


def test_a_batch_of_another_size_is_an_error():
    with pytest.raises(DataError, match="0 answers came back for 2 items"):
        ask("ab", [False, False], 4, lambda batch: [], lambda batch, replies: None)


def test_round_up():
    assert [round_up(n, 1) for n in range(1, 10)] == [1, 2, 3, 4, 6, 6, 8, 8, 12]
    assert [round_up(n, 64) for n in (1, 64, 65, 97, 129, 200)] == [64, 64, 96, 128, 192, 256]


def test_buckets_hold_their_prompts_in_whole_windows_and_are_few():
    assert bucket_of(70, 0, 0, LAYOUT) == (96, (0, 0))
    assert bucket_of(64, 1, 64, LAYOUT) == (64, (1, 64))
    assert bucket_of(65, 3, 5 * 64, LAYOUT) == (96, (3, 6 * 64))
    assert len({bucket_of(length, 1, 64, LAYOUT) for length in range(1, 2049)}) == 11


def test_settings_follow_the_section_and_greedy_ones_are_not_truncated():
    rollout = RolloutSection(top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.2, stop=("x",), cache_sizes=2)
    settings = SampleSettings.of(rollout, 4, 300)
    assert settings == SampleSettings(4, 300, 1.0, 5, 0.9, 0.1, 1.2, ("x",), 6, 2)
    names = {field.name for field in dataclasses.fields(settings)} & RolloutSection.model_fields.keys()
    assert names == RolloutSection.model_fields.keys() - {"draws"}
    greedy = SampleSettings.of(rollout, 1, 64, temperature=0.0)
    assert greedy == SampleSettings(1, 64, 0.0, repetition_penalty=1.2, stop=("x",), compactions=0, cache_sizes=2)
    loose = Sampling(samples=3, max_tokens=300, temperature=0.7, top_p=1.0).settings(rollout)
    assert loose == SampleSettings(3, 300, 0.7, 5, 1.0, 0.1, 1.2, ("x",))


@pytest.fixture(scope="module")
def policy(policy_directory, tmp_path_factory):
    return load_policy(tiny_config(tmp_path_factory.mktemp("run")), policy_directory)


def test_the_identity_tells_weights_prompts_and_sampling_apart(policy, tmp_path):
    settings = SampleSettings(4, 16, 1.0)
    same = identity(policy, settings, 0)
    assert same == identity(policy, dataclasses.replace(settings, compactions=2, cache_sizes=2), 0)
    other = tiny_config(tmp_path, "prompt.system=Think")
    said = [
        same,
        *(identity(policy, dataclasses.replace(settings, **change), 0) for change in CHANGES),
        identity(policy, settings, 1),
        identity(dataclasses.replace(policy, config=other), settings, 0),
    ]
    directory = tmp_path / "copy"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(b"other weights")
    said.append(identity(dataclasses.replace(policy, name=str(directory)), settings, 0).replace(str(directory), "M"))
    assert len(set(said)) == len(said)
    assert same.startswith(f"{policy.name} {policy.digest[:12]} k=4 T=1 max=16 seed=0")


CHANGES = (
    {"group_size": 2},
    {"max_response": 8},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"repetition_penalty": 1.5},
    {"stop": ("a",)},
)


def test_stop_texts_and_penalties_reach_loose_prompts(policy):
    problems = [make_problem("bars", "plain", "train", 0, n, "image") for n in range(2)]
    plans = [plan(policy, "image", problem) for problem in problems]
    free = answer(policy, plans, SampleSettings(4, 24, 1.0), 2, seed=1)
    stop = free.texts[0][0][2]
    ended = answer(policy, plans, SampleSettings(4, 24, 1.0, stop=(stop,)), 2, seed=1)
    for before, after in zip(np.ravel(free.texts), np.ravel(ended.texts), strict=True):
        place = before.find(stop)
        assert before.startswith(after) if place >= 0 else before == after
        assert stop not in after[:-1] or after.index(stop) == place
    assert ended.finished[0, 0]
    assert ended.lengths[0, 0] < free.lengths[0, 0]
    penalised = answer(policy, plans, SampleSettings(4, 24, 1.0, repetition_penalty=2.0), 2, seed=1)
    assert penalised.texts != free.texts
