#!/usr/bin/env bash
# Writes launch/constraints.txt anew: the newest version of every package that pyproject.toml and its extras allow, for
# each Python from 3.11 on. Needs uv and an index of packages:
#
#   bash launch/lock.sh && bash launch/test.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
file=launch/constraints.txt
new="$(mktemp)"
trap 'rm -f "$new"' EXIT
grep '^#' "$file" > "$new"
extras=(--extra test --extra tpu --extra gcs --extra video --extra studies)
# Neither torch, which environment.sh installs first, nor what JAX and torch pin themselves.
uv --no-config pip compile --quiet --universal --python-version 3.11 --fork-strategy requires-python --no-annotate \
  --no-header "${extras[@]}" pyproject.toml | sed -E '/^(nvidia|cuda)-|^(triton|torch)==/d' >> "$new"
cp "$new" "$file"
