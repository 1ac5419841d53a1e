#!/usr/bin/env bash
# From a fresh clone to a trained nano vision-language model: installs into .venv, runs the three-phase curriculum, and
# leaves a report. Arguments go to `infimmr train`, for example: bash launch/quickstart.sh --set seed=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=environment.sh
. launch/environment.sh
prepare_environment "${INFIMMR_EXTRAS:-}"

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
output="${INFIMMR_OUTPUT:-runs/nano}"
if [ -e "$output" ]; then
  kept="$output-$(date +%Y%m%d-%H%M%S)"
  mv "$output" "$kept"
  echo "The run that was in $output is now in $kept."
fi
exec .venv/bin/infimmr train --config configs/nano.yaml --set output="$output" "$@"
