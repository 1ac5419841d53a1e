"""The versions that the two commands of the README install: pinned for every Python, and within pyproject's bounds."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "launch" / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def machine(python):
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def versions(python):
    """Every package with its one version on a machine."""
    pins = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(machine(python)):
            assert canonicalize_name(pin.name) not in pins, f"two versions of {pin.name}"
            (exact,) = pin.specifier
            assert exact.operator == "=="
            pins[canonicalize_name(pin.name)] = exact.version
    return pins


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_within_its_bounds(python):
    pins = versions(python)
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in ("test", "gcs", "video", "studies") for line in extras[name])]
    for wanted in map(Requirement, lines):
        # environment.sh installs it first, from where a CPU build is at hand.
        if wanted.name == "torch":
            pin = re.search(r"torch==([\d.]+)", (ROOT / "launch" / "environment.sh").read_text())
            assert pin[1] in wanted.specifier
        elif wanted.marker is None or wanted.marker.evaluate(machine(python)):
            assert pins[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_users_of_newer_pythons_get_a_newer_jax():
    assert versions("3.11")["jax"].startswith("0.10.")
    assert versions("3.12")["jax"] == versions("3.13")["jax"] == "0.12.0.1"


def test_versions_with_known_holes_are_not_allowed():
    bounds = {Requirement(line).name: Requirement(line).specifier for line in PROJECT["dependencies"]}
    # CVE-2025-27516 and CVE-2025-48379.
    assert "3.1.5" not in bounds["jinja2"]
    assert "11.2.1" not in bounds["pillow"]


def test_both_commands_and_the_image_install_with_the_pins():
    for name in ("environment.sh", "Dockerfile"):
        assert "--constraint" in (ROOT / "launch" / name).read_text()
    for name in ("quickstart.sh", "test.sh"):
        assert "prepare_environment" in (ROOT / "launch" / name).read_text()
