"""Values with which nothing would be learned, or which are no numbers: refused, with the reason."""

import pytest

from infimmr_jax.config import ConfigError, parse_config

PHASE = {"name": "a", "modality": "text", "steps": 4, "sources": [{"reader": "jsonl", "path": "x.jsonl"}]}


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            {"rollout": {"temperature": 0}},
            "rollout.temperature: Input should be greater than 0 (got 0): at 0 all answers",
        ),
        ({"reward": {"weights": {}}}, "reward: `weights` is empty, so every answer gets 0 and nothing is learned"),
        ({"reward": {"weights": {"accuracy": 0, "format": 0.0}}}, "`weights` holds zeros only"),
        (
            {"reward": {"weights": {"accuracy": float("nan")}}},
            "reward.weights.accuracy: Input should be a finite number",
        ),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate: Input should be a finite number"),
        (
            {"grpo": {"kl": {"coefficient": float("inf")}}},
            "grpo.kl.coefficient: Input should be a finite number (got inf",
        ),
        (
            {"rollout": {"top_p": 0.9}, "grpo": {"importance": {"level": "token"}}},
            "rollout.top_p: 0.9 leaves tokens out",
        ),
        (
            {"rollout": {"top_k": 5}, "grpo": {"importance": {"level": "sequence"}}},
            "rollout.top_k: 5 leaves tokens out",
        ),
        (
            {"rollout": {"min_p": 0.1}, "grpo": {"importance": {"level": "token"}}},
            "rollout.min_p: 0.1 leaves tokens out",
        ),
    ],
)
def test_what_teaches_nothing_is_refused(tree, sentence):
    with pytest.raises(ConfigError) as error:
        parse_config({"phases": [PHASE], **tree})
    assert sentence in str(error.value)


def test_a_bound_is_said_with_its_reason():
    with pytest.raises(ConfigError) as error:
        parse_config({"phases": [PHASE | {"group_size": 1}]})
    assert (
        "phases.0.group_size: Input should be greater than or equal to 2 (got 1): an answer is judged by comparison "
        "with the others of its group"
    ) in str(error.value)


def test_the_home_directory_is_expanded_wherever_a_path_is_a_key(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    source = {"reader": "jsonl", "path": "~/a.jsonl", "images": "~/i", "captions": "~/c", "pass_rates": "~/p"}
    config = parse_config(
        {
            "output": "~/runs/x",
            "model": {"path": "~/models/m"},
            "data": {"root": "~"},
            "checkpoint": {"directory": "~/c"},
            "sft": {"stages": [{"steps": 30}], "conversations": [{"path": "~/t.jsonl"}]},
            "phases": [PHASE | {"sources": [source]}],
        }
    )
    assert str(config.output) == "/home/me/runs/x"
    assert str(config.model.path) == "/home/me/models/m"
    assert str(config.data.root) == "/home/me"
    assert config.checkpoint.directory == "/home/me/c"
    assert config.sft.conversations[0].path == "/home/me/t.jsonl"
    read = config.phases[0].sources[0]
    assert [read.path, read.images, read.captions, read.pass_rates] == [
        "/home/me/a.jsonl",
        "/home/me/i",
        "/home/me/c",
        "/home/me/p",
    ]
    assert (
        parse_config({"phases": [PHASE], "checkpoint": {"directory": "gs://b/~x"}}).checkpoint.directory == "gs://b/~x"
    )


def test_an_unknown_home_directory_is_said():
    with pytest.raises(ConfigError, match="output: '~nobody-of-this-name/x' names a home directory that is not known"):
        parse_config({"phases": [PHASE], "output": "~nobody-of-this-name/x"})
