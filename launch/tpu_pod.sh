#!/usr/bin/env bash
# A TPU slice of Google Cloud, from a queued resource to the finished run. Everything after -- goes to `infimmr train`
# on every host of the slice:
#
#   bash launch/tpu_pod.sh --name run1 --zone us-west4-a --type v5litepod-16 \
#     --setup 'gcloud storage rsync -r gs://bucket/data data && gcloud storage rsync -r gs://bucket/models models' \
#     -- --config configs/infimmr_3b.yaml --config configs/machines/3b_v5e-16.yaml \
#     --set checkpoint.directory=gs://bucket/run1
#
# The hosts get the revision that is checked out here, as a git bundle: no repository has to be reachable from there.
# While this script runs, a slice that is taken back is asked for again, a host that was lost is started again, and the
# run goes on from the newest checkpoint, which must be in a bucket: the disks of a slice that was taken back are gone.
# Started again, it goes on with what is there.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=options.sh
. "$root/launch/options.sh"

usage() {
  header_of "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --name NAME       name of the queued resource and of its slice
  --zone ZONE       zone of the slice
  --type TYPE       accelerator type, such as v5litepod-16, v5p-8, v6e-8
  --runtime V       software version (v2-alpha-tpuv5-lite, v2-alpha-tpuv5 or v2-alpha-tpuv6e by type)
  --project P       project; default: gcloud's
  --spot            cheaper, and taken back at any time
  --setup CMD       bash runs it on each host, in the checkout, before each start of the run: it brings data and weights
  --poll SECONDS    how often the slice and its hosts are looked at (60)
  --delete          delete the slice when the run is over
  --dry-run         print every command, and run none
TEXT
}

name="" zone="" type="" runtime="" project="" spot="" setup="" poll=60 delete="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name) value "$@"; name="$2"; shift 2 ;;
    --zone) value "$@"; zone="$2"; shift 2 ;;
    --type) value "$@"; type="$2"; shift 2 ;;
    --runtime) value "$@"; runtime="$2"; shift 2 ;;
    --project) value "$@"; project="$2"; shift 2 ;;
    --spot) spot=--spot; shift ;;
    --setup) value "$@"; setup="$2"; shift 2 ;;
    --poll) value "$@"; form "$1" "$2" '[0-9]{1,6}(\.[0-9]{1,6})?' "a number of seconds"; poll="$2"; shift 2 ;;
    --delete) delete=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) unknown "$1" ;;
  esac
done
for needed in name zone type; do
  if [ -z "${!needed}" ]; then
    echo "error: --$needed is missing; see --help" >&2
    exit 2
  fi
done
something_to_run "$@"
case "$type" in
  v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
  v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
  v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
  *) if [ -z "$runtime" ]; then echo "error: --type $type is not known here; give --runtime" >&2; exit 2; fi ;;
esac
case " $* " in
  *checkpoint.directory=gs://*) ;;
  *)
    echo "note: checkpoint.directory is not set to gs:// here; on several hosts it must be," \
      "unless the configuration does" >&2 ;;
esac

revision="$(revision_of "$root" "the hosts run")"
place=(--zone "$zone" --quiet)
[ -n "$project" ] && place+=(--project "$project")
bundle="${TMPDIR:-/tmp}/infimmr-$revision.bundle"

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

resources() { run gcloud compute tpus queued-resources "$@" "${place[@]}"; }
on_hosts() { run gcloud compute tpus tpu-vm ssh "$name" --worker="$1" --command "$2" "${place[@]}"; }
create() {
  resources create "$name" --node-id "$name" --accelerator-type "$type" --runtime-version "$runtime" ${spot:+"$spot"}
}
state() { resources describe "$name" --format='value(state.state)' 2>/dev/null || echo ABSENT; }

provide() { # a slice that is there, whatever was before
  local now asked=""
  if [ -n "$dry_run" ]; then
    create
    echo "# wait until gcloud says ACTIVE; a slice that is SUSPENDED before is deleted and asked for again"
    return
  fi
  while now="$(state)" && [ "$now" != ACTIVE ]; do
    echo "tpu_pod: $(date +%T) $name is $now" >&2
    if [ "$now" = FAILED ] && [ -n "$asked" ]; then
      echo "error: the request for the slice failed; this says why: gcloud compute tpus queued-resources describe" \
        "$name --zone $zone" >&2
      return 1
    fi
    case "$now" in
      FAILED | SUSPENDED) resources delete "$name" --force; now=ABSENT ;;
    esac
    if [ "$now" = ABSENT ]; then
      # A slice that was there once may be there still: then only the look at it failed, and this is refused.
      create || [ -n "$seen" ]
      asked=1
    fi
    sleep "$poll"
  done
  seen=1
}

send() { # the code of this revision
  run git -C "$root" bundle create --quiet "$bundle" HEAD &&
    run gcloud compute tpus tpu-vm scp "$bundle" "$name:infimmr.bundle" --worker=all "${place[@]}"
}

host_command() { # starts the run where it is not running; with "again" only where it has not ended either
  # The lock belongs to the processes of the run and is gone with them, also when the host was rebooted.
  cat <<TEXT
set -e
exec 9> infimmr.lock
flock -n 9 && free=1 || free=""
if [ $1 = again ] && [ -s infimmr.status ]; then
  echo "infimmr: ended with \$(cat infimmr.status) on \$(hostname)"
  [ "\$(cat infimmr.status)" = 0 ] || tail -n 5 infimmr.log
  exit
fi
if [ -z "\$free" ]; then echo "infimmr: running on \$(hostname)"; exit; fi
rm -f infimmr.status
if ! test -e infimmr.bundle; then echo "infimmr: the code is not on \$(hostname) yet"; exit 1; fi
(
  set +e
  (
    set -e
    git init --quiet infimmr
    cd infimmr
    git fetch --quiet ../infimmr.bundle HEAD
    git checkout --quiet --force $revision
    . launch/environment.sh
    bring_python || true
    prepare_environment tpu,gcs
    export INFIMMR_SETUP=$(printf '%q' "$setup")
    bash launch/restart.sh .venv/bin/infimmr train --auto-resume $(printf '%q ' "${arguments[@]}")
  )
  echo \$? > infimmr.status
) >> infimmr.log 2>&1 < /dev/null &
echo "infimmr: started on \$(hostname)"
TEXT
}

outcome() { # of what the hosts said: the status of an error, else 0 when all have ended
  local said statuses worst
  said="$(cat)"
  statuses="$(sed -n 's/^infimmr: ended with \([0-9]*\) .*/\1/p' <<<"$said" | sort -nu)"
  worst="$(sed '/^0$/d' <<<"$statuses" | head -n 1)"
  if [ -n "$worst" ]; then
    echo "$worst"
  elif [ -n "$statuses" ] && ! grep -q '^infimmr: \(running\|started\)' <<<"$said"; then
    echo 0
  fi
}

follow() { # until the run is over, which gives it a status, or the slice is not there any more
  local said how=start
  send || true
  if [ -n "$dry_run" ]; then
    on_hosts all "$(host_command start)"
    echo "# every $poll s, which starts hosts that were lost as well:"
    on_hosts all "$(host_command again)"
    on_hosts 0 "tail -n 3 infimmr.log"
    echo "# a slice that is not ACTIVE any more is asked for again, and everything above is repeated"
    status=0
    return
  fi
  while [ "$(state)" = ACTIVE ]; do
    if said="$(on_hosts all "$(host_command "$how")")"; then how=again; else send || true; fi
    status="$(outcome <<<"$said")"
    if [ -n "$status" ]; then
      echo "$said"
      return
    fi
    sleep "$poll"
    on_hosts 0 "tail -n 3 infimmr.log" || true
  done
}

arguments=("$@") status="" seen=""
while [ -z "$status" ]; do
  provide
  follow
  [ -n "$status" ] || echo "tpu_pod: the slice was taken back, or can not be seen; asking for it again" >&2
done
[ -n "$delete" ] && resources delete "$name" --force
if [ -z "$dry_run" ]; then
  echo "tpu_pod: the run ended with status $status; its output is in infimmr.log on each host"
  if [ "$status" -eq 75 ] || [ "$status" -gt 128 ]; then
    echo "tpu_pod: it was stopped, or lost too often; start this script again to go on from the newest checkpoint" >&2
  fi
fi
exit "$status"
