"""Functions by name: from the path, and from the working directory behind it."""

import sys
from pathlib import Path

import pytest

from infimmr_jax.rewards.loading import LoadError, load_callable


def test_a_module_in_the_working_directory_is_found_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_rewards.py").write_text("def f(group):\n    return 7\n")
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the working directory stands in for a library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "json")
    assert load_callable("my_own_rewards:f", "reward.weights")(None) == 7
    assert load_callable("json:loads", "reward.weights")("1") == 1


@pytest.mark.parametrize("name", ["f", ":f", "m:", ""])
def test_a_name_that_is_no_name(name: str) -> None:
    with pytest.raises(LoadError, match=r"reward.weights names .* it must be module:function"):
        load_callable(name, "reward.weights")
