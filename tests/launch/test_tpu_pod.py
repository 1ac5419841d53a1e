"""A TPU slice, with a gcloud of our own that runs what a host is sent, as sshd does, in a folder for each host."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SLICE = ("--name", "n", "--zone", "z", "--type", "v5litepod-16")
RUN = ("--config", "configs/nano.yaml", "--set", 'name=a b & "c"')

# `states` holds what the slice is, look by look; the last one stays. `lost` names a host that is rebooted, and with
# "disk" comes back without one, before the next look at it. A slice that is made has new hosts.
GCLOUD = r"""cloud=CLOUD
echo "${*%%--command*}" >> "$cloud/log"
lose() {
  # As a machine that goes down: a request to all processes at once, and little time.
  for signal in TERM KILL; do
    while read -r group; do kill -"$signal" -- "-$group" 2>/dev/null; done < "$cloud/groups/$1"
    sleep 0.2
  done
  : > "$cloud/groups/$1"
  [ -z "$2" ] || until rm -rf "$cloud/hosts/$1" 2>/dev/null; do sleep 0.05; done
  mkdir -p "$cloud/hosts/$1"
}
command=""; workers="0 1"; before=""
for word; do
  [ "$before" != --command ] || command="$word"
  case "$word" in --worker=[0-9]) workers="${word#--worker=}" ;; esac
  before="$word"
done
case "$*" in
  *" describe "*)
    now="$(head -n 1 "$cloud/states")"
    [ "$(wc -l < "$cloud/states")" -le 1 ] || sed -i 1d "$cloud/states"
    [ "$now" != ABSENT ] || exit 1
    echo "$now" ;;
  *" create "*)
    for worker in $workers; do lose "$worker" disk; done
    echo "# made" >> "$cloud/log" ;;
  *" scp "*) for worker in $workers; do cp "$5" "$cloud/hosts/$worker/infimmr.bundle"; done ;;
  *" ssh "*)
    if [ -e "$cloud/lost" ]; then
      read -r worker disk < "$cloud/lost"
      lose "$worker" "$disk"
      rm "$cloud/lost"
    fi
    for worker in $workers; do
      # exec: then the words of the command are in the list of processes, as they are on a host.
      note="echo \$\$ >> $cloud/groups/$worker; exec bash -c \"\$0\""
      (cd "$cloud/hosts/$worker" && HOME="$PWD" setsid --wait bash -c "$note" "$command") || status=$?
    done
    exit "${status:-0}" ;;
esac
"""
# Makes environments whose `infimmr` notes its start and runs until the file `end` says with which status it ends.
PYTHON = r"""case "$*" in
  -VV) echo "Python 3.12.0" ;;
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp CLOUD/infimmr .venv/bin/infimmr ;;
esac
"""
INFIMMR = r"""#!/usr/bin/env bash
printf '%s\n' "$@" > ~/arguments
echo $$ >> ~/starts
until [ -s ~/end ]; do sleep 0.02; done
exit "$(cat ~/end)"
"""


class Cloud:
    """A slice of two hosts, and the script that looks after it."""

    def __init__(self, folder, tools, project):
        self.folder, self.project = folder / "cloud", project
        self.hosts = [self.folder / "hosts" / str(worker) for worker in range(2)]
        for host in self.hosts:
            host.mkdir(parents=True)
        infimmr = self.folder / "infimmr"
        infimmr.write_text(INFIMMR.replace("CLOUD", str(self.folder)))
        infimmr.chmod(0o755)
        self.tools = tools("gcloud", GCLOUD.replace("CLOUD", str(self.folder)))
        tools("stand-in-python", PYTHON.replace("CLOUD", str(self.folder)))
        self.groups = [self.folder / "groups" / host.name for host in self.hosts]
        for group in self.groups:
            group.parent.mkdir(exist_ok=True)
            group.touch()
        self.jobs = []
        self.states("ACTIVE")

    def states(self, *states):
        (self.folder / "states").write_text("\n".join(states) + "\n")

    def start(self, *options, **variables):
        variables = {"PYTHON": str(self.tools / "stand-in-python"), "INFIMMR_RESTART_SECONDS": "0"} | variables
        environment = os.environ | {"PATH": f"{self.tools}:{os.environ['PATH']}", "TMPDIR": str(self.folder)}
        script = str(self.project / "launch" / "tpu_pod.sh")
        job = subprocess.Popen(
            ["bash", script, *SLICE, "--poll", "0.05", *options, "--", *RUN],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | variables,
        )
        self.jobs.append(job)
        return job

    def log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def starts(self, worker):
        path = self.hosts[worker] / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def end(self, status):
        for host in self.hosts:
            (host / "end").write_text(f"{status}\n")

    def close(self):
        for job in self.jobs:
            job.kill()
            job.communicate()
        for group in " ".join(file.read_text() for file in self.groups).split():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)


@pytest.fixture
def cloud(tmp_path, tools, project):
    made = Cloud(tmp_path, tools, project)
    yield made
    made.close()


def wait_until(true, job=None):
    limit = time.monotonic() + 30
    while not true():
        assert job is None or job.poll() is None, job.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_the_run_starts_on_every_host_once_and_a_second_script_finds_it(cloud):
    setup = 'git rev-parse HEAD >> ~/setups && pwd >> ~/setups && echo "it\'s $((1 + 1))" >> ~/setups'
    first = cloud.start("--setup", setup)
    wait_until(lambda: cloud.starts(0) and cloud.starts(1), first)
    sent = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=cloud.project)
    for host in cloud.hosts:
        assert (host / "setups").read_text().splitlines() == [sent.stdout.strip(), f"{host}/infimmr", "it's 2"]
        assert (host / "arguments").read_text().splitlines() == ["train", "--auto-resume", *RUN]
    first.kill()
    looks = cloud.log().count(" ssh ")
    second = cloud.start("--setup", setup)
    wait_until(lambda: cloud.log().count(" ssh ") > looks + 6, second)
    cloud.end(0)
    said, errors = second.communicate(timeout=30)
    assert second.returncode == 0, errors
    assert "the run ended with status 0" in said
    assert [len(cloud.starts(worker)) for worker in range(2)] == [1, 1]
    assert "create" not in cloud.log()


def test_a_host_that_was_lost_is_started_again(cloud):
    job = cloud.start("--setup", "echo x >> ~/setups")
    wait_until(lambda: cloud.starts(0) and cloud.starts(1), job)
    (cloud.folder / "lost").write_text("1\n")
    wait_until(lambda: len(cloud.starts(1)) == 2, job)
    cloud.end(0)
    job.communicate(timeout=30)
    assert job.returncode == 0
    assert len(cloud.starts(0)) == 1
    assert (cloud.hosts[1] / "setups").read_text() == "x\nx\n"


def test_a_host_whose_disk_was_lost_gets_the_code_again(cloud):
    job = cloud.start()
    wait_until(lambda: cloud.starts(0) and cloud.starts(1), job)
    (cloud.folder / "lost").write_text("1 disk\n")
    wait_until(lambda: not (cloud.folder / "lost").exists() and cloud.starts(1), job)
    cloud.end(0)
    job.communicate(timeout=30)
    assert job.returncode == 0
    # At the start, and once more.
    assert cloud.log().count(" scp ") == 2


def test_a_run_that_died_is_started_again_by_the_next_script(cloud):
    cloud.end(1)
    first = cloud.start()
    first.communicate(timeout=30)
    assert first.returncode == 1
    for host in cloud.hosts:
        (host / "end").unlink()
    looks = cloud.log().count(" ssh ")
    second = cloud.start()
    # The status of the first run must not end the second.
    wait_until(lambda: cloud.log().count(" ssh ") > looks + 6, second)
    cloud.end(0)
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert [len(cloud.starts(worker)) for worker in range(2)] == [2, 2]


def test_a_run_that_gives_up_is_not_taken_for_a_slice_that_was_taken_back(cloud):
    cloud.end(75)
    job = cloud.start(INFIMMR_RESTARTS="1")
    said, errors = job.communicate(timeout=30)
    assert job.returncode == 75
    assert "the run ended with status 75" in said
    assert "it was stopped, or lost too often; start this script again" in errors
    assert "taken back" not in errors
    assert [len(cloud.starts(worker)) for worker in range(2)] == [2, 2]


def test_an_error_on_any_host_ends_the_script_with_its_last_words(cloud):
    job = cloud.start("--setup", '[ "$(basename "$HOME")" = 0 ] || exit 9')
    said, _ = job.communicate(timeout=30)
    assert job.returncode == 1
    assert "the setup command ended with status 9, so nothing was started" in said


def test_a_slice_that_is_taken_back_is_asked_for_again(cloud):
    cloud.states("ABSENT", "ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED")
    job = cloud.start("--spot", "--delete")
    wait_until(lambda: cloud.log().count("# made") == 2, job)
    cloud.states("PROVISIONING", "ACTIVE")
    wait_until(lambda: cloud.starts(0) and cloud.starts(1), job)
    cloud.end(0)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 0, errors
    assert "the slice was taken back, or can not be seen; asking for it again" in errors
    asked = [line for line in cloud.log().splitlines() if " delete " in line or " create " in line]
    assert [line.split()[3] for line in asked[:3]] == ["create", "delete", "create"]
    assert asked[-1].split()[3] == "delete"


def test_a_slice_that_is_taken_back_before_it_was_there_is_asked_for_again(cloud):
    cloud.states("ABSENT", "WAITING_FOR_RESOURCES", "SUSPENDING", "SUSPENDED", "PROVISIONING", "ACTIVE")
    job = cloud.start("--spot")
    wait_until(lambda: cloud.starts(0) and cloud.starts(1), job)
    cloud.end(0)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 0, errors
    assert cloud.log().count(" create ") == 2
    assert cloud.log().count(" delete ") == 1


def test_a_request_that_fails_ends_the_script(cloud):
    cloud.states("FAILED", "WAITING_FOR_RESOURCES", "FAILED")
    job = cloud.start()
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 1
    assert "error: the request for the slice failed; this says why: gcloud compute tpus queued-resources" in errors
    # One that was left by somebody is none of ours.
    assert cloud.log().count(" create ") == 1


def test_a_host_whose_python_is_too_old_gets_one(cloud, tools, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            if not program.name.startswith("python") and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    new = cloud.tools / "stand-in-python"
    tools(
        "python3",
        f"""echo "$*" >> ~/asked
case "$*" in
  *"uv python find"*) echo {new} ;;
  -c*) exit 1 ;;
esac""",
    )
    cloud.end(0)
    job = cloud.start(PATH=f"{cloud.tools}:{programs}", PYTHON="")
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 0, errors
    asked = (cloud.hosts[0] / "asked").read_text()
    assert "-m pip install --quiet --user uv\n-m uv python install --quiet --managed-python 3.12\n" in asked
    assert len(cloud.starts(0)) == 1


def test_the_commands_are_shown_and_none_is_run(launch, words_of, revision, cloud):
    options = ("--spot", "--delete", "--setup", "gcloud storage rsync -r gs://b/data data", "--dry-run")
    said = launch("tpu_pod.sh", *SLICE, *options, "--", *RUN, path=cloud.tools)
    assert said.returncode == 0, said.stderr
    assert cloud.log() == ""
    commands = [words_of(line) for line in said.stdout.splitlines() if not line.startswith("#")]
    made = commands[0]
    assert made[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert {"--spot", "v5litepod-16", "v2-alpha-tpuv5-lite"} <= set(made)
    sent = [words[words.index("--command") + 1] for words in commands if "--worker=all" in words and "ssh" in words]
    assert len(sent) == 2
    for text in sent:
        assert f"git checkout --quiet --force {revision}" in text
        assert text.index("bring_python") < text.index("prepare_environment")
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    assert commands[-1][4] == "delete"
    assert "checkpoint.directory is not set to gs:// here" in said.stderr
