"""The JobSet for GKE: filled in with the arguments as they are, with what was asked for and without what was not."""

import os
import subprocess
from pathlib import Path

import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
RUN = ("--config", "configs/nano.yaml", "--set", 'name=a b & "c" $(HOME) \\ $$\tx')
SLICE = ("--name", "n", "--accelerator", "tpu-v5p-slice", "--topology", "2x2x2", "--image", "r/i", "--dry-run")


def job_of(said):
    assert said.returncode == 0, said.stderr
    tree = yaml.safe_load(said.stdout)
    assert tree["kind"] == "JobSet"
    return tree["spec"]["replicatedJobs"][0]["template"]["spec"]


def as_kubernetes_reads(word):
    """What is left of `$$`; a variable in `$(...)` would not stay."""
    assert "$(" not in word.replace("$$", "")
    return word.replace("$$", "$")


def test_the_jobset_is_filled_in_with_the_arguments_as_they_are(launch, revision):
    job = job_of(launch("gke.sh", *SLICE, "--", *RUN))
    assert job["parallelism"] == job["completions"] == 2
    pod = job["template"]
    (container,) = pod["spec"]["containers"]
    assert [as_kubernetes_reads(word) for word in container["args"]] == list(RUN)
    assert container["image"] == f"r/i:{revision}"
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert codes["containerName"] == container["name"]
    assert 75 not in codes["values"]
    assert "metadata" not in pod
    assert not {"volumes", "serviceAccountName"} & set(pod["spec"])
    assert "volumeMounts" not in container


def test_a_bucket_is_mounted_where_it_is_asked_for(launch):
    options = ("--bucket", "gs://my-bucket", "--service-account", "trainer")
    pod = job_of(launch("gke.sh", *SLICE, *options, "--", *RUN))["template"]
    assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert pod["spec"]["serviceAccountName"] == "trainer"
    (volume,) = pod["spec"]["volumes"]
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert volume["csi"]["readOnly"] is True
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/bucket")


def test_a_container_runs_the_setup_and_then_the_run(launch, tools, tmp_path):
    path = tools("infimmr", f"printf '%s\\0' \"$@\" > {tmp_path}/seen; exit 75")

    def status_with(setup):
        (container,) = job_of(launch("gke.sh", *SLICE, "--setup", setup, "--", *RUN))["template"]["spec"]["containers"]
        words = [as_kubernetes_reads(word) for word in (*container["command"], *container["args"])]
        variables = {item["name"]: as_kubernetes_reads(item["value"]) for item in container["env"]}
        environment = os.environ | variables | {"PATH": f"{path}:{os.environ['PATH']}"}
        return subprocess.run(words, check=False, env=environment, cwd=tmp_path).returncode

    assert status_with("exit 3") == 1
    assert not (tmp_path / "seen").exists()
    assert status_with('echo "$(basename "$PWD")" > folder\necho & true') == 75
    assert (tmp_path / "folder").read_text() == f"{tmp_path.name}\n"
    assert (tmp_path / "seen").read_text().split("\0")[:-1] == ["train", "--auto-resume", *RUN]


def test_the_jobset_says_which_image_it_needs(launch, project):
    (project / "launch" / "restart.sh").write_text("changed\n")
    said = launch("gke.sh", *SLICE, "--", *RUN, root=project)
    assert "changes that are not committed do not take part; the image must be of" in said.stderr


def test_the_jobset_file_itself_is_valid_yaml():
    tree = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert tree["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert tree["spec"]["failurePolicy"]["maxRestarts"] > 0
    # The schema of JobSet wants a name for each rule.
    assert all(rule["name"] for rule in tree["spec"]["failurePolicy"]["rules"])


def test_a_pod_runs_as_the_user_of_the_image_unless_root_is_asked_for(launch):
    pod = job_of(launch("gke.sh", *SLICE, "--", *RUN))["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (LAUNCH / "Dockerfile").read_text()
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = job_of(launch("gke.sh", *SLICE, "--root", "--", *RUN))["template"]["spec"]
    assert "securityContext" not in pod
    assert "securityContext" not in pod["containers"][0]
