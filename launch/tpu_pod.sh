#!/usr/bin/env bash
# A TPU slice of Google Cloud, from a queued resource to the finished run. Everything after -- goes to `infimmr train`
# on every host of the slice:
#
#   bash launch/tpu_pod.sh --name run1 --zone us-west4-a --type v5litepod-16 -- --config configs/machines/3b_v5e-16.yaml \
#     --set checkpoint.directory=gs://my-bucket/run1
#
# The hosts get the revision that is checked out here, as a git bundle: no repository has to be reachable from there.
# While this script runs, a preempted slice is asked for again and the run goes on from the newest checkpoint, which
# must be in a bucket: the disks of a preempted slice are gone. Started again, it goes on with what is there.
set -euo pipefail

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --name NAME       name of the queued resource and of its slice
  --zone ZONE       zone of the slice
  --type TYPE       accelerator type, such as v5litepod-16, v5p-8, v6e-8
  --runtime V       software version (v2-alpha-tpuv5-lite, v2-alpha-tpuv5 or v2-alpha-tpuv6e by type)
  --project P       project; default: gcloud's
  --spot            cheaper, and taken back at any time
  --poll SECONDS    how often the slice is looked at (60)
  --delete          delete the slice when the run is over
  --dry-run         print every command, and run none
TEXT
}

name="" zone="" type="" runtime="" project="" spot="" poll=60 delete="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="$2"; shift 2 ;;
    --zone) zone="$2"; shift 2 ;;
    --type) type="$2"; shift 2 ;;
    --runtime) runtime="$2"; shift 2 ;;
    --project) project="$2"; shift 2 ;;
    --spot) spot=--spot; shift ;;
    --poll) poll="$2"; shift 2 ;;
    --delete) delete=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option $1 (arguments of infimmr train come after --)" >&2; exit 2 ;;
  esac
done
for needed in name zone type; do
  if [ -z "${!needed}" ]; then
    echo "error: --$needed is missing; see --help" >&2
    exit 2
  fi
done
if [ $# -eq 0 ]; then
  echo "error: nothing to run; give the arguments of infimmr train after --" >&2
  exit 2
fi
case "$type" in
  v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
  v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
  v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
  *) if [ -z "$runtime" ]; then echo "error: --type $type is not known here; give --runtime" >&2; exit 2; fi ;;
esac
case " $* " in
  *checkpoint.directory=gs://*) ;;
  *) echo "note: checkpoint.directory is not set to gs:// here; on several hosts it must be, unless the configuration does" >&2 ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
revision="$(git -C "$root" rev-parse HEAD)"
if [ -n "$(git -C "$root" status --porcelain --untracked-files=no)" ]; then
  echo "note: changes that are not committed do not take part; the hosts run $revision" >&2
fi
place=(--zone "$zone" --quiet)
[ -n "$project" ] && place+=(--project "$project")
bundle="${TMPDIR:-/tmp}/infimmr-$revision.bundle"
quoted="$(printf '%q ' "$@")"

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpu() { gcloud compute tpus "$@" "${place[@]}"; }
state() { tpu queued-resources describe "$name" --format='value(state.state)' 2>/dev/null || echo ABSENT; }
on_hosts() { run gcloud compute tpus tpu-vm ssh "$name" --worker="$1" --command "$2" "${place[@]}"; }

provide() { # a slice that is there, whatever was before
  local now=ABSENT
  if [ -z "$dry_run" ]; then now="$(state)"; fi
  case "$now" in
    ACTIVE) return ;;
    FAILED | SUSPENDED | SUSPENDING) run gcloud compute tpus queued-resources delete "$name" --force "${place[@]}" ;;
    ABSENT) ;;
    *) wait_until_active; return ;;
  esac
  run gcloud compute tpus queued-resources create "$name" --node-id "$name" --accelerator-type "$type" \
    --runtime-version "$runtime" ${spot:+"$spot"} "${place[@]}"
  wait_until_active
}

wait_until_active() {
  if [ -n "$dry_run" ]; then
    echo "# wait until gcloud says ACTIVE"
    return
  fi
  local now
  while now="$(state)" && [ "$now" != ACTIVE ]; do
    case "$now" in
      FAILED | SUSPENDED) echo "tpu_pod: the slice is $now before it was ever active" >&2; return 1 ;;
    esac
    echo "tpu_pod: $(date +%T) $name is $now" >&2
    sleep "$poll"
  done
}

start() { # the code of this revision, its environment, and the run, on all hosts; nothing where it runs already
  run git -C "$root" bundle create --quiet "$bundle" HEAD
  run gcloud compute tpus tpu-vm scp "$bundle" "$name:infimmr.bundle" --worker=all "${place[@]}"
  on_hosts all "set -e
test -d infimmr || git clone --quiet --no-checkout infimmr.bundle infimmr
cd infimmr
git fetch --quiet ../infimmr.bundle HEAD
git checkout --quiet --force $revision
. launch/environment.sh
prepare_environment tpu,gcs
if ! pgrep -f launch/restart.sh >/dev/null; then
  rm -f ../infimmr.status
  (bash launch/restart.sh .venv/bin/infimmr train --auto-resume $quoted; echo \$? > ../infimmr.status) > ../infimmr.log 2>&1 < /dev/null &
fi"
}

follow() { # until the run is over (its status) or the slice is lost (75)
  if [ -n "$dry_run" ]; then
    on_hosts 0 "cat infimmr.status"
    echo "# every $poll s; a slice that is not ACTIVE any more is asked for again, and everything above is repeated"
    return
  fi
  local status
  while sleep "$poll"; do
    [ "$(state)" = ACTIVE ] || return 75
    on_hosts 0 "tail -n 3 infimmr.log" || true
    status="$(on_hosts 0 "cat infimmr.status 2>/dev/null" || true)"
    if [ -n "$status" ]; then return "$status"; fi
  done
}

while :; do
  provide
  start
  status=0
  follow || status=$?
  if [ "$status" -ne 75 ]; then break; fi
  echo "tpu_pod: the slice was taken back; asking for another one" >&2
done
[ -n "$delete" ] && run gcloud compute tpus queued-resources delete "$name" --force "${place[@]}"
[ -n "$dry_run" ] || echo "tpu_pod: the run ended with status $status; its output is in infimmr.log on worker 0"
exit "$status"
