#!/usr/bin/env bash
# GPU nodes under SLURM, one process a node with all of its GPUs. It submits itself; everything after -- goes to
# `infimmr train`:
#
#   bash launch/slurm.sh --nodes 1 --gpus 8 --time 24:00:00 -- \
#     --config configs/infimmr_3b.yaml --config configs/machines/3b_8xh100.yaml --set output=/shared/run
#
# The job runs the code and the configurations of the revision that was checked out when it was submitted. Relative
# paths of data, models and output are below the checkout, whatever its revision, so that a later submission goes on
# with the same run. The checkout must be on a disk that all nodes see.
# Before its time is over, or when it is preempted, the job saves, ends with 75 and is queued again; then it goes on
# from the newest checkpoint.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@300
set -euo pipefail

usage() {
  header_of "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --nodes N         nodes (1)
  --gpus N          GPUs of each node (8)
  --time T          time limit of one stay in the queue (24:00:00)
  --name NAME       name of the job (infimmr)
  --log FILE        output (infimmr-%j.log)
  --sbatch=OPTION   one more option for sbatch, such as --sbatch=--partition=gpu; repeatable. A job has whole nodes and
                    all of their memory; --sbatch=--oversubscribe, --sbatch=--cpus-per-task=N and --sbatch=--mem=M
                    ask for less
  --dry-run         print what would be submitted and run, and do nothing
TEXT
}

root="${INFIMMR_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
# One lost task ends all of them; the others would wait for it.
step=(srun --kill-on-bad-exit=1)

submit() {
  # Not for the job, of which SLURM runs a copy elsewhere.
  # shellcheck source-path=SCRIPTDIR source=options.sh
  . "$root/launch/options.sh"
  local nodes=1 gpus=8 time=24:00:00 name=infimmr log='infimmr-%j.log' dry_run="" more=() revision
  while [ $# -gt 0 ]; do
    case "$1" in
      --nodes) value "$@"; number "$1" "$2" 1; nodes="$2"; shift 2 ;;
      --gpus) value "$@"; number "$1" "$2" 1; gpus="$2"; shift 2 ;;
      --time) value "$@"; time="$2"; shift 2 ;;
      --name) value "$@"; name="$2"; shift 2 ;;
      --log) value "$@"; log="$2"; shift 2 ;;
      --sbatch=*) more+=("${1#--sbatch=}"); shift ;;
      --dry-run) dry_run=1; shift ;;
      --) shift; break ;;
      -h | --help) usage; exit 0 ;;
      *) unknown "$1" ;;
    esac
  done
  something_to_run "$@"
  revision="$(revision_of "$root" "the job runs")"
  # By default a task has one CPU and the memory that goes with it. sbatch refuses each of these beside its opposite.
  case " ${more[*]}" in *" --oversubscribe"* | *" --exclusive"*) ;; *) more+=(--exclusive) ;; esac
  case " ${more[*]}" in *" --mem"*) ;; *) more+=(--mem=0) ;; esac
  local command=(sbatch --nodes="$nodes" --gpus-per-node="$gpus" --time="$time" --job-name="$name" --output="$log"
    "--export=ALL,INFIMMR_ROOT=$root,INFIMMR_REVISION=$revision" "${more[@]}" "${BASH_SOURCE[0]}" "$@")
  if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}"
    printf '\nin the job: checkout %s in %q; in %q, on each of %s nodes:\n' \
      "$revision" "$(code_of "$revision")" "$root" "$nodes"
    name_configs "$(code_of "$revision")" "$@"
    printf '%q ' "${step[@]}"
    # shellcheck disable=SC2016
    printf '%s ' --cpus-per-task='$SLURM_CPUS_ON_NODE'
    printf '%q ' python -m infimmr_jax.cli train --auto-resume "${arguments[@]}"
    printf '\nafter status 75: scontrol requeue\n'
    return
  fi
  "${command[@]}"
}

code_of() { echo "$root/.revisions/$1"; }

checkout() { # the revision of the submission, beside the working tree that may have moved on
  local folder="$1"
  if [ ! -e "$folder/.git" ]; then
    git -C "$root" worktree prune
    git -C "$root" worktree add --quiet --detach "$folder" "$INFIMMR_REVISION" >&2
  fi
}

name_configs() { # arguments: those given, with the configurations that revision $1 has taken from there
  local code="$1" word before=""
  shift
  arguments=()
  for word in "$@"; do
    case "$before" in --config | -c) word="$(in_revision "$word")" ;; esac
    case "$word" in --config=*) word="--config=$(in_revision "${word#--config=}")" ;; esac
    arguments+=("$word")
    before="$word"
  done
}

in_revision() {
  local file="${1#"$root"/}"
  if git -C "$root" cat-file -e "${code##*/}:$file" 2>/dev/null; then echo "$code/$file"; else echo "$1"; fi
}

job() {
  local code coordinator status=0 asked=""
  code="$(code_of "$INFIMMR_REVISION")"
  checkout "$code"
  name_configs "$code" "$@"
  coordinator="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
  coordinator="${coordinator%%$'\n'*}"
  export INFIMMR_COORDINATOR="$coordinator:$((20000 + SLURM_JOB_ID % 20000))" INFIMMR_PROCESSES="$SLURM_NNODES"
  # The code of the revision; a safe path, for else the code in the current directory would come before it.
  export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
  export INFIMMR_PYTHON="${INFIMMR_PYTHON:-$root/.venv/bin/python}"
  cd "$root"
  # Since SLURM 22.05 srun does not take the number of CPUs from sbatch.
  # shellcheck disable=SC2016
  "${step[@]}" --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    bash -c 'INFIMMR_PROCESS="$SLURM_PROCID" exec "$INFIMMR_PYTHON" -m infimmr_jax.cli train --auto-resume "$@"' \
    infimmr "${arguments[@]}" &
  local child=$!
  trap 'asked=1; kill -TERM "$child" 2>/dev/null' TERM
  while :; do
    wait "$child" && status=0 || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  # 75: saved and asked to stop. Above 128: a node or a task was lost. Anything else would fail again.
  if [ "$status" -eq 75 ] || [ "$status" -gt 128 ] || [ -n "$asked" ]; then
    echo "slurm: ended with status $status; queued again, to go on from the newest checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$status"
}

if [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${INFIMMR_REVISION:-}" ]; then
  job "$@"
else
  submit "$@"
fi
