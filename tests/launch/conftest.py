"""What the tests of the launch scripts share: running one, and programs that stand in for those of a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launch():
    """Runs a script of `launch/`, or of another checkout, to its end; `path` is a folder of stand-ins."""

    def run(script, *arguments, path=None, root=ROOT, **variables):
        environment = os.environ | {"INFIMMR_PYTHON": sys.executable} | variables
        if path is not None:
            environment["PATH"] = f"{path}:{environment['PATH']}"
        return subprocess.run(
            ["bash", str(root / "launch" / script), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            cwd=root,
        )

    return run


@pytest.fixture
def tools(tmp_path):
    """Makes a program of our own in one folder, and gives the folder."""

    def make(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)
        return path.parent

    return make


@pytest.fixture
def words_of():
    """The words of a line as bash reads them (it knows $'...', shlex does not)."""

    def split(line):
        script = f"words=({line}); printf '%s\\0' \"${{words[@]}}\""
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.split("\0")[:-1]

    return split


@pytest.fixture(scope="session")
def revision():
    """The commit of this checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A repository with these scripts as they are now, whose one commit may be sent to hosts; gives its folder."""
    folder = tmp_path / "project"
    (folder / "launch").mkdir(parents=True)
    for file in (*(ROOT / "launch").iterdir(), ROOT / "pyproject.toml"):
        copy = folder / file.relative_to(ROOT)
        copy.write_bytes(file.read_bytes())
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], check=True, cwd=folder)
    return folder
