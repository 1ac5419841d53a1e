#!/usr/bin/env bash
# Runs a command, and again while it ends with 75 (state saved, try again) or by a signal (lost, or another host was):
#   bash launch/restart.sh .venv/bin/infimmr train --auto-resume --config configs/nano.yaml
# INFIMMR_RESTARTS bounds how often (100); a pause between attempts lets the other hosts notice the loss as well.
# INFIMMR_SETUP is a command that bash runs before each attempt, such as one that brings data from a bucket.
set -uo pipefail

restarts="${INFIMMR_RESTARTS:-100}" pause="${INFIMMR_RESTART_SECONDS:-10}"
if ! [[ "$restarts" =~ ^[0-9]{1,9}$ ]]; then
  echo "error: INFIMMR_RESTARTS must be a whole number, not $restarts" >&2
  exit 2
fi
child="" asked=""
# Passed on, so that the run saves; then this script ends too: who sent it wants the machine back.
trap 'asked=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT
for ((attempt = 0; ; attempt++)); do
  child=""
  bash -c "${INFIMMR_SETUP:-}"
  status=$?
  if [ -n "$asked" ]; then exit 75; fi
  if [ "$status" -ne 0 ]; then
    echo "error: the setup command ended with status $status, so nothing was started: ${INFIMMR_SETUP:-}" >&2
    exit 1
  fi
  "$@" &
  child=$!
  # A signal between these two lines had no child to go to.
  if [ -n "$asked" ]; then kill -TERM "$child" 2>/dev/null; fi
  status=0
  while :; do
    wait "$child"
    status=$?
    kill -0 "$child" 2>/dev/null || break # else a signal came to this script while it waited
  done
  if [ -n "$asked" ]; then exit "$status"; fi
  if [ "$status" -ne 75 ] && [ "$status" -le 128 ]; then exit "$status"; fi
  if [ "$attempt" -ge "$restarts" ]; then
    echo "restart: ended with status $status for the ${attempt}th time after a restart; giving up" >&2
    exit "$status"
  fi
  echo "restart: ended with status $status; starting again in $pause s (restart $((attempt + 1)) of $restarts)" >&2
  sleep "$pause"
  if [ -n "$asked" ]; then exit "$status"; fi
done
