"""Every list of configurations that the documentation gives to a command can be loaded as the command loads it."""

import re
from pathlib import Path

import pytest

from infimmr_jax.config import load_config

ROOT = Path(__file__).parents[2]
PLACES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
HEADERS = [
    str(path.relative_to(ROOT))
    for folder, names in (("launch", "*.sh"), ("configs", "**/*.yaml"))
    for path in sorted((ROOT / folder).glob(names))
]
COMMAND = re.compile(r"infimmr(_jax\.cli)? [a-z]|launch/\w+\.sh")
# A word in capitals stands for something of the reader's own; so does a file that is not below configs/.
PLACEHOLDER = re.compile(r"[A-Z]{3,}|^(?!configs/)")


def commands(place):
    """The lines with a command, each with the lines that continue it."""
    text = (ROOT / place).read_text(encoding="utf-8")
    if place in HEADERS:
        text = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#"))
    text = re.sub(r"\\\n\s*", "", text)
    # In prose a command is between backticks; a fenced or an indented line is one as it is.
    for line in text.splitlines():
        yield from (part for part in line.split("`") if COMMAND.search(part))


def files_and_overrides(command):
    """What follows --config and --set, in the order of the line."""
    files = re.findall(r"(?:--config|-c)[ =]([^\s\"'),]+)", command)
    return files, [word.strip("'\"") for word in re.findall(r"--set (\"[^\"]*\"|'[^']*'|[^\s\"'),]+)", command)]


def documented():
    for place in PLACES + HEADERS:
        for command in commands(place):
            files, overrides = files_and_overrides(command)
            if files and not any(PLACEHOLDER.search(file) for file in files):
                yield pytest.param(files, overrides, id=f"{place}:{'+'.join(Path(file).stem for file in files)}")


@pytest.mark.parametrize(("files", "overrides"), documented())
def test_a_documented_list_of_configurations_can_be_loaded(files, overrides):
    assert load_config([ROOT / file for file in files], overrides).phases


def test_the_lists_are_found():
    found = {tuple(parameters.values[0]) for parameters in documented()}
    machine = "configs/machines/3b_{}.yaml"
    assert ("configs/infimmr_3b.yaml", machine.format("v5e-16")) in found
    assert ("configs/infimmr_3b.yaml", machine.format("8xh100")) in found
    places = {parameters.id.split(":")[0] for parameters in documented()}
    launchers = {f"launch/{name}.sh" for name in ("multiprocess", "slurm", "tpu_pod", "gke", "restart")}
    assert launchers | {"README.md", "docs/running.md", "docs/scaling.md"} <= places
