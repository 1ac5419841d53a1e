#!/usr/bin/env bash
# One job of several processes on this machine, with a supervisor: when one process is lost the others are ended, and
# all start again from the newest checkpoint. Everything after -- goes to `infimmr train`.
#
#   bash launch/multiprocess.sh --processes 2 --devices 2 -- --config configs/nano.yaml --set output=runs/two
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=options.sh
. "$root/launch/options.sh"

usage() {
  header_of "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --processes N   number of processes (2)
  --devices N     virtual CPU devices of each process; left out: the machine's own devices
  --restarts N    how often the job may start again after a loss (10)
  --logs DIR      where the output of processes 1, 2, ... goes (runs/logs)
  --dry-run       print what would be started, and start nothing
TEXT
}

processes=2 devices="" restarts=10 logs=runs/logs dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --processes) value "$@"; number "$1" "$2" 1; processes="$2"; shift 2 ;;
    --devices) value "$@"; number "$1" "$2" 1; devices="$2"; shift 2 ;;
    --restarts) value "$@"; number "$1" "$2" 0; restarts="$2"; shift 2 ;;
    --logs) value "$@"; logs="$2"; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) unknown "$1" ;;
  esac
done
something_to_run "$@"

python="${INFIMMR_PYTHON:-$root/.venv/bin/python}"
command=("$python" -m infimmr_jax.cli train --auto-resume "$@")

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

job_environment() { # of process $1 with the coordinator at port $2
  printf '%s\n' "INFIMMR_COORDINATOR=127.0.0.1:$2" "INFIMMR_PROCESSES=$processes" "INFIMMR_PROCESS=$1"
  # gRPC would ask a proxy for the coordinator as well, and wait for it in vain.
  printf '%s\n' "no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}" "NO_PROXY=127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"
  if [ -n "$devices" ]; then
    printf '%s\n' JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
  fi
}

if [ -n "$dry_run" ]; then
  for ((i = 0; i < processes; i++)); do
    mapfile -t variables < <(job_environment "$i" PORT)
    printf 'process %s: ' "$i"
    printf '%q ' env "${variables[@]}" "${command[@]}"
    echo
  done
  echo "restarts: $restarts, logs: $logs/process-N.log"
  exit 0
fi

mkdir -p "$logs"
declare -A index_of=()
asked=""

start_all() {
  local i port variables
  port="$(free_port)"
  index_of=()
  for ((i = 0; i < processes; i++)); do
    mapfile -t variables < <(job_environment "$i" "$port")
    if [ "$i" -eq 0 ]; then
      env "${variables[@]}" "${command[@]}" &
    else
      env "${variables[@]}" "${command[@]}" >>"$logs/process-$i.log" 2>&1 &
    fi
    index_of[$!]="$i"
  done
}

end_all() {
  local pid
  for pid in "${!index_of[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
}

# The job's processes are told, save together and end with 75; this script then ends with 75 as well. Ctrl-C in a
# terminal reaches the processes by itself; this one more signal changes nothing for them.
trap 'asked=1; for pid in "${!index_of[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done' TERM INT
trap end_all EXIT

for ((attempt = 0; ; attempt++)); do
  start_all
  worst=0
  while [ "${#index_of[@]}" -gt 0 ]; do
    status=0 ended=""
    wait -n -p ended "${!index_of[@]}" || status=$?
    # A signal came to this script: wait has unset the variable.
    [ -n "${ended:-}" ] || continue
    index="${index_of[$ended]}"
    unset "index_of[$ended]"
    [ "$status" -ne 0 ] || continue
    [ "$worst" -ne 0 ] && continue
    worst="$status"
    [ "$status" -eq 75 ] && continue # preempted: the others save and end too
    how="ended with status $status"
    [ "$status" -gt 128 ] && how="was ended by signal $((status - 128))"
    echo "multiprocess: process $index of $processes $how; the others are stopped" >&2
    [ "$index" -ne 0 ] && tail -n 5 "$logs/process-$index.log" >&2
    # They wait for a lost process in vain, and have nothing to save that the last checkpoint does not hold.
    end_all
    index_of=()
  done
  if [ "$worst" -eq 0 ]; then exit 0; fi
  if [ -n "$asked" ] && { [ "$worst" -eq 75 ] || [ "$worst" -gt 128 ]; }; then exit 75; fi
  if [ "$worst" -ne 75 ] && [ "$worst" -lt 128 ]; then
    echo "multiprocess: starting again would not help; see the message above" >&2
    exit "$worst"
  fi
  if [ "$attempt" -ge "$restarts" ]; then
    echo "multiprocess: lost $((attempt + 1)) times, giving up; start it again to go on from the newest checkpoint" >&2
    exit 75
  fi
  echo "multiprocess: starting all $processes processes again from the newest checkpoint" >&2
done
