"""Options of the bench that a part does not read are refused, in words."""

import inspect

import pytest
from typer.testing import CliRunner

from infimmr_jax import cli
from infimmr_jax.bench.part_options import READ, refuse_unread
from infimmr_jax.config import ConfigError


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["curriculum", "--repeats", "3", "--prompts", "77"], "does not read --repeats, --prompts; .* with --set"),
        (["curriculum", "--dtype", "bfloat16"], "does not read --dtype"),
        (["curriculum", "--model", "runs"], "does not read --model"),
        (["prefill", "--new-tokens", "8"], "bench prefill does not read --new-tokens; give it to the parts that do"),
        (["update", "--longest", "8"], "does not read --longest"),
        (["step", "--repeated"], "does not read --repeated"),
        (["rollout", "--set", "seed=1"], "give --config as well"),
        (["rollout", "--model", "runs", "--shape", "3b"], "give --shape or --model, not both"),
        (["update", "--config", "c.yaml", "--remat", "full"], "as model.remat"),
        (["everything"], "choose one of prefill, decode, rollout, update, step, curriculum"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments, sentence):
    found = CliRunner().invoke(cli.app, ["bench", *arguments])
    assert isinstance(found.exception, ConfigError)
    with pytest.raises(ConfigError, match=sentence):
        raise found.exception


def test_unknown_number_formats_are_a_usage_error():
    found = CliRunner().invoke(cli.app, ["bench", "rollout", "--dtype", "float99"])
    assert found.exit_code == 2
    assert "float99" in found.stderr


def test_every_option_of_the_command_is_read_by_some_part():
    options = set(inspect.signature(cli.bench).parameters) - {"context", "part"}
    assert options == set().union(*READ.values())
    for part, read in READ.items():
        refuse_unread(part, read - {"model", "config", "overrides"})
