#!/usr/bin/env bash
# GPU nodes under SLURM, one process a node with all of its GPUs. It submits itself; everything after -- goes to
# `infimmr train`:
#
#   bash launch/slurm.sh --nodes 2 --gpus 8 --time 24:00:00 -- --config configs/infimmr_3b.yaml --set output=/shared/run
#
# The job runs the revision that was checked out when it was submitted. Before its time is over, or when it is
# preempted, it saves, ends with 75 and is queued again; then it goes on from the newest checkpoint.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@300
set -euo pipefail

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --nodes N         nodes (1)
  --gpus N          GPUs of each node (8)
  --time T          time limit of one stay in the queue (24:00:00)
  --name NAME       name of the job (infimmr)
  --log FILE        output (infimmr-%j.log)
  --sbatch OPTION   one more option for sbatch, such as --sbatch=--partition=gpu; repeatable
  --dry-run         print what would be submitted and run, and do nothing
TEXT
}

root="${INFIMMR_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"

submit() {
  local nodes=1 gpus=8 time=24:00:00 name=infimmr log='infimmr-%j.log' dry_run="" more=() revision
  while [ $# -gt 0 ]; do
    case "$1" in
      --nodes) nodes="$2"; shift 2 ;;
      --gpus) gpus="$2"; shift 2 ;;
      --time) time="$2"; shift 2 ;;
      --name) name="$2"; shift 2 ;;
      --log) log="$2"; shift 2 ;;
      --sbatch=*) more+=("${1#--sbatch=}"); shift ;;
      --dry-run) dry_run=1; shift ;;
      --) shift; break ;;
      -h | --help) usage; exit 0 ;;
      *) echo "error: unknown option $1 (arguments of infimmr train come after --)" >&2; exit 2 ;;
    esac
  done
  if [ $# -eq 0 ]; then
    echo "error: nothing to run; give the arguments of infimmr train after --" >&2
    exit 2
  fi
  revision="$(git -C "$root" rev-parse HEAD)"
  if [ -n "$(git -C "$root" status --porcelain --untracked-files=no)" ]; then
    echo "note: changes that are not committed do not take part; the job runs $revision" >&2
  fi
  local command=(sbatch --nodes="$nodes" --gpus-per-node="$gpus" --time="$time" --job-name="$name" --output="$log"
    "--export=ALL,INFIMMR_ROOT=$root,INFIMMR_REVISION=$revision" "${more[@]}" "${BASH_SOURCE[0]}" "$@")
  if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}"
    printf '\nin the job: checkout %s; on each of %s nodes: ' "$revision" "$nodes"
    printf '%q ' python -m infimmr_jax.cli train --auto-resume "$@"
    printf '\nafter status 75: scontrol requeue\n'
    return
  fi
  "${command[@]}"
}

checkout() { # the revision of the submission, beside the working tree that may have moved on
  local folder="$root/.revisions/$INFIMMR_REVISION"
  if [ ! -e "$folder/.git" ]; then
    git -C "$root" worktree prune
    git -C "$root" worktree add --quiet --detach "$folder" "$INFIMMR_REVISION" >&2
  fi
  echo "$folder"
}

job() {
  local code coordinator status=0 asked=""
  code="$(checkout)"
  coordinator="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
  coordinator="${coordinator%%$'\n'*}"
  export INFIMMR_COORDINATOR="$coordinator:$((20000 + SLURM_JOB_ID % 20000))" INFIMMR_PROCESSES="$SLURM_NNODES"
  export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}" INFIMMR_PYTHON="${INFIMMR_PYTHON:-$root/.venv/bin/python}"
  cd "$code"
  # One lost task ends all of them; the others would wait for it.
  # shellcheck disable=SC2016
  srun --kill-on-bad-exit=1 bash -c 'INFIMMR_PROCESS="$SLURM_PROCID" exec "$INFIMMR_PYTHON" -m infimmr_jax.cli train --auto-resume "$@"' infimmr "$@" &
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
