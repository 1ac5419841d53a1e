#!/usr/bin/env bash
# A TPU slice on GKE: fills in gke_jobset.yaml and applies it. Everything after -- goes to `infimmr train`:
#
#   bash launch/gke.sh --name run1 --accelerator tpu-v5-lite-podslice --topology 4x4 --image REGISTRY/infimmr -- \
#     --config configs/machines/3b_v5e-16.yaml --set checkpoint.directory=gs://my-bucket/run1
#
# The image must have been built from the revision that is checked out here, and be tagged with it:
#   docker build -t REGISTRY/infimmr:$(git rev-parse HEAD) -f launch/Dockerfile . && docker push ...
set -euo pipefail

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --name NAME         name of the JobSet
  --accelerator A     node label gke-tpu-accelerator: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice
  --topology T        node label gke-tpu-topology, such as 4x4 or 2x2x2
  --chips N           chips of one host (4)
  --image IMAGE       image without its tag
  --dry-run           print the filled-in file, and apply nothing
TEXT
}

name="" accelerator="" topology="" chips=4 image="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="$2"; shift 2 ;;
    --accelerator) accelerator="$2"; shift 2 ;;
    --topology) topology="$2"; shift 2 ;;
    --chips) chips="$2"; shift 2 ;;
    --image) image="$2"; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option $1 (arguments of infimmr train come after --)" >&2; exit 2 ;;
  esac
done
for needed in name accelerator topology image; do
  if [ -z "${!needed}" ]; then
    echo "error: --$needed is missing; see --help" >&2
    exit 2
  fi
done
if [ $# -eq 0 ]; then
  echo "error: nothing to run; give the arguments of infimmr train after --" >&2
  exit 2
fi

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
total=1
for side in ${topology//x/ }; do total=$((total * side)); done
if [ $((total % chips)) -ne 0 ]; then
  echo "error: $total chips of topology $topology are no multiple of $chips chips a host" >&2
  exit 2
fi
arguments=""
for word in "$@"; do # as JSON strings
  word="${word//\\/\\\\}"
  arguments+="${arguments:+, }\"${word//\"/\\\"}\""
done

file="$(cat "$here/gke_jobset.yaml")"
# Else bash 5.2 reads & in a replacement as the match.
shopt -u patsub_replacement 2>/dev/null || true
fill() { file="${file//"\${$1}"/$2}"; }
fill NAME "$name"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "$topology"
fill HOSTS "$((total / chips))"
fill CHIPS "$chips"
fill IMAGE "$image"
fill REVISION "$(git -C "$here" rev-parse HEAD)"
fill ARGUMENTS "[$arguments]"
if [ -n "$dry_run" ]; then
  printf '%s\n' "$file"
else
  kubectl apply -f - <<<"$file"
fi
