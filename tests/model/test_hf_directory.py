"""What the files of a directory say of each other: ends of a turn, the size of the table, the marks of pictures."""

import json
import shutil

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.model.hf import convert
from infimmr_jax.model.hf_directory import read_directory


@pytest.fixture
def directory(policy_directory, tmp_path):
    """A copy of a tiny policy, to be spoiled."""
    shutil.copytree(policy_directory, tmp_path / "model")
    return tmp_path / "model"


def edit(path, **change):
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | change))


def test_all_ends_of_all_files_and_the_templates_own_first(directory):
    _, tokenizer = read_directory(directory)
    turn, text, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|vision_pad|>"])

    def ends(config, generation, named="<|im_end|>"):
        edit(directory / "config.json", eos_token_id=config)
        edit(directory / "generation_config.json", eos_token_id=generation)
        edit(directory / "tokenizer_config.json", eos_token=named)
        return read_directory(directory)[0].tokens.ends

    assert ends(turn, turn) == (turn,)
    # A model that was saved with another end than its chats have: every answer would run to its limit.
    assert ends(text, [turn, text]) == (turn, text)
    assert ends(text, text) == (turn, text)
    assert ends(text, None, "<|endoftext|>") == (turn, text)
    assert ends(turn, None) == (turn,)
    assert ends(turn, [other], "<|endoftext|>") == (turn, other, text)


def test_a_tokenizer_with_more_entries_than_rows_is_refused_before_anything_is_computed(directory, tmp_path):
    model, tokenizer = read_directory(directory)
    rows = len(tokenizer) - 3
    edit(directory / "config.json", vocab_size=rows)
    words = f"its tokenizer has {len(tokenizer)} entries, its embedding table {rows} rows"
    with pytest.raises(ConfigError, match=words):
        read_directory(directory)
    with pytest.raises(ConfigError, match=words):
        convert(directory, tmp_path / "converted")
    assert model.vocab_size >= len(tokenizer)


def test_marks_of_pictures_must_be_those_of_the_tokenizer(directory):
    edit(directory / "config.json", image_token_id=9)
    with pytest.raises(ConfigError, match=r"config\.json gives <\|image_pad\|> the id 9, its tokenizer \d+"):
        read_directory(directory)
