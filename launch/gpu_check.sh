#!/usr/bin/env bash
# Everything that only a GPU can show, recorded as JSON: the quickstart, one update and one rollout at the shape of the
# 3B model with random weights, forward parity with PyTorch on the same GPU, and the tests of parity and of the sampler.
#
#   INFIMMR_EXTRAS=cuda bash launch/gpu_check.sh [DIRECTORY]      # default: runs/gpu
#
# INFIMMR_PYTHON takes another interpreter than .venv's; INFIMMR_PARTS a part of "doctor quickstart update rollout
# parity tests". Each part writes DIRECTORY/PART.log; summary.json has the status and the seconds of each, and what it
# printed as JSON.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

out="${1:-runs/gpu}"
parts="${INFIMMR_PARTS:-doctor quickstart update rollout parity tests}"
python="${INFIMMR_PYTHON:-}"
if [ -z "$python" ]; then
  # shellcheck source-path=SCRIPTDIR source=environment.sh
  . launch/environment.sh
  prepare_environment "${INFIMMR_EXTRAS:-cuda},test" || exit $?
  python=.venv/bin/python
fi
mkdir -p "$out"
# docs/running.md gives the reasons.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
infimmr=("$python" -m infimmr_jax.cli)
shape="${INFIMMR_SHAPE:-3b}"
size=(--shape "$shape" --prompts 8 --prompt-tokens 512 --image-size 448 --group 8 --new-tokens 512)

command_of() {
  case "$1" in
    doctor) command=("${infimmr[@]}" doctor) ;;
    quickstart) command=("${infimmr[@]}" train --auto-resume --config configs/nano.yaml --set "output=$out/nano") ;;
    update) command=("${infimmr[@]}" bench update "${size[@]}" --micro-batches 4 --remat full) ;;
    rollout) command=("${infimmr[@]}" bench rollout "${size[@]}") ;;
    parity)
      command=(env XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" studies/gpu_parity.py --shape "$shape"
        --out "$out/parity.json") ;;
    # These compare with PyTorch in float32: TF32 products would be three digits short.
    tests) command=(env JAX_DEFAULT_MATMUL_PRECISION=highest "$python" -m pytest -q -m parity tests/parity) ;;
    *) echo "error: there is no part $1" >&2; exit 2 ;;
  esac
}

worst=0
for part in $parts; do
  command_of "$part"
  began=$SECONDS
  status=0
  "${command[@]}" > "$out/$part.log" 2>&1 || status=$?
  echo "gpu_check: $part ended with status $status after $((SECONDS - began)) s"
  printf '%s\t%s\t%s\t%s\n' "$part" "$status" "$((SECONDS - began))" "${command[*]}" >> "$out/parts.tsv"
  [ "$status" -eq 0 ] || worst=1
done
"$python" - "$out" <<'PYTHON'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
summary = {}
for line in (out / "parts.tsv").read_text().splitlines():
    part, status, seconds, command = line.split("\t")
    entry = {"command": command, "status": int(status), "seconds": int(seconds)}
    for text in (out / f"{part}.log").read_text(errors="replace").splitlines():
        if text.startswith("{"):
            try:
                entry["printed"] = json.loads(text)
            except ValueError:
                continue
    summary[part] = entry
for name, path in (("evals", "nano/evals.jsonl"), ("environment", "nano/environment.json"), ("parity", "parity.json")):
    if (out / path).exists():
        text = (out / path).read_text()
        rows = [json.loads(line) for line in text.splitlines()] if path.endswith("l") else json.loads(text)
        summary.setdefault("found", {})[name] = rows
(out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
print(out / "summary.json")
PYTHON
exit "$worst"
