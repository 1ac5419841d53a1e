"""Plans by arithmetic: state bytes against the shardings, advice, the command and its JSON."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from infimmr_jax.cli import app
from infimmr_jax.config import ConfigError, load_config
from infimmr_jax.plan.chips import GIB, parse_topology
from infimmr_jax.plan.planner import changed, make_plan
from infimmr_jax.plan.report import show

CONFIGS = Path(__file__).parents[2] / "configs"
THREE_B = 3_754_622_976


def config(*machine, size="3b", overrides=()):
    files = [CONFIGS / f"infimmr_{size}.yaml", *(CONFIGS / "machines" / f"{name}.yaml" for name in machine)]
    return load_config(files, list(overrides))


def test_the_state_is_split_over_the_chips():
    plan = make_plan(config("3b_8xh100"), parse_topology("gpu:h100x8"), False)
    assert plan.fits
    assert plan.parameters == THREE_B
    memory = plan.programs[1].memory
    # Norm scales and biases are whole everywhere: well under a percent.
    assert memory.parameters == pytest.approx(4 * THREE_B / 8, rel=0.005)
    assert memory.optimizer == pytest.approx(2 * memory.parameters, rel=0.005)
    assert 0 < plan.flops_share < 1
    assert plan.tokens_per_second * plan.seconds == pytest.approx(128 * 8 * 2048)


@pytest.mark.parametrize(
    ("size", "machine", "topology"),
    [
        ("3b", "3b_v5e-16", "v5e:4x4"),
        ("3b", "3b_v5p-8", "v5p:2x2x1"),
        ("3b", "3b_v5p-8", "v5p:2x2x2"),
        ("3b", "3b_v6e-8", "v6e:2x4"),
        ("7b", "7b_v5p-16", "v5p:2x2x2"),
    ],
)
def test_every_ready_configuration_fits_its_machine_by_arithmetic(size, machine, topology):
    assert make_plan(config(machine, size=size), parse_topology(topology), False, search=False).fits


def test_a_terminal_of_80_columns_shows_every_number_whole():
    console = Console(file=io.StringIO(), width=80)
    plan = make_plan(config("3b_v5p-8"), parse_topology("v5p:2x2x1"), False, search=False)
    show(plan, console)
    shown = console.file.getvalue()
    assert "…" not in shown
    for part in (part for program in plan.programs for part in program.parts if part.least(plan.topology.chip) > 1e-3):
        assert f"{part.bytes / 1e9:,.1f}" in shown


def test_a_small_model_is_planned_in_units_that_show_it():
    console = Console(file=io.StringIO(), width=80)
    nano = load_config(CONFIGS / "nano.yaml")
    plan = make_plan(nano, parse_topology("v5e:2x2"), False, search=False)
    show(plan, console)
    lines = console.file.getvalue().splitlines()
    peak = next(line for line in lines if line.strip().startswith("peak")).split()
    assert all(float(value) >= 0.1 for value in peak[1:])
    unit = next(line for line in lines if "on one chip (of" in line).split()[0]
    scale = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}[unit]
    assert float(peak[1]) == pytest.approx(plan.programs[0].peak / scale, abs=0.01)
    # The longest parts are there, with numbers.
    parts = [line.split() for line in lines if line.strip().startswith("branch")]
    assert parts
    assert all(max(map(float, words[4:7])) > 0 for words in parts)
    assert "million parameters" in " ".join(lines)
    assert "0.0 s" not in " ".join(lines)


def test_what_does_not_fit_is_mended():
    small = config("3b_v5e-16", overrides=["mesh.tensor=1", "mesh.fsdp=4", "grpo.micro_batches=1"])
    topology = parse_topology("v5e:4x4")
    plan = make_plan(small, topology, False)
    assert not plan.fits
    assert len(plan.advice) == 1
    assert plan.advice[0].startswith("Fits by arithmetic")
    flags = [part.split("=") for part in plan.advice[0].split() if "=" in part]
    assert ["mesh.fsdp", "8"] in flags
    assert make_plan(changed(small, {key: int(value) for key, value in flags}), topology, False).fits


def test_what_can_not_be_mended_is_said():
    large = config("7b_v5p-16", size="7b", overrides=["model.preset=qwen2.5-vl-72b", "mesh.fsdp=4"])
    plan = make_plan(large, parse_topology("v5e:2x2"), False)
    assert not plan.fits
    assert "the least is" in plan.advice[0]
    assert "Take more chips" in plan.advice[0]


def test_a_batch_that_the_chips_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"phases.0.prompts_per_step: 128 can not be divided over 8 devices and 3"):
        make_plan(config("3b_8xh100", overrides=["grpo.micro_batches=3"]), parse_topology("gpu:h100x8"), False)


def test_the_command_prints_tables_and_writes_json(tmp_path):
    out = tmp_path / "plan.json"
    files = ["-c", str(CONFIGS / "infimmr_3b.yaml"), "-c", str(CONFIGS / "machines" / "3b_8xh100.yaml")]
    done = CliRunner().invoke(app, ["plan", *files, "--topology", "gpu:h100x8", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "It fits." in done.output
    tree = json.loads(out.read_text())
    assert tree["method"] == "arithmetic"
    assert [program["name"] for program in tree["programs"]] == ["sampler", "update"]
    assert tree["programs"][0]["memory"]["caches"] / GIB == pytest.approx(10.1, abs=0.1)
    assert all(part["bound"] in ("compute", "memory", "links") for p in tree["programs"] for part in p["parts"])
