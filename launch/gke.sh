#!/usr/bin/env bash
# A TPU slice on GKE: fills in gke_jobset.yaml and applies it. Everything after -- goes to `infimmr train`:
#
#   bash launch/image.sh --image REGISTRY/infimmr
#   bash launch/gke.sh --name run1 --accelerator tpu-v5-lite-podslice --topology 4x4 --image REGISTRY/infimmr \
#     --bucket bucket --service-account trainer -- \
#     --config configs/infimmr_3b.yaml --config configs/machines/3b_v5e-16.yaml \
#     --set data.root=/bucket/data --set model.path=/bucket/models/Qwen2.5-VL-3B-Instruct \
#     --set checkpoint.directory=gs://bucket/run1
#
# The image must have been built from the revision that is checked out here, and be tagged with it; image.sh does both.
# Pods and their disks are gone when the job starts again: checkpoints must be in a bucket.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=options.sh
. "$root/launch/options.sh"

usage() {
  header_of "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --name NAME             name of the JobSet
  --accelerator A         node label gke-tpu-accelerator: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice
  --topology T            node label gke-tpu-topology, such as 4x4 or 2x2x2
  --chips N               chips of one host (4)
  --image IMAGE           image without its tag
  --bucket BUCKET         mount this bucket at /bucket, to read; the cluster needs the Cloud Storage FUSE CSI driver
  --service-account NAME  Kubernetes service account that may read the bucket and write the checkpoints
  --setup CMD             bash runs it in each pod before the run, such as a download to a disk of the pod
  --root                  run as root in the pod, for nodes whose devices are not open to others
  --dry-run               print the filled-in file, and apply nothing
TEXT
}

name="" accelerator="" topology="" chips=4 image="" bucket="" account="" setup="" as_root="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name) value "$@"; name="$2"; shift 2 ;;
    --accelerator) value "$@"; accelerator="$2"; shift 2 ;;
    --topology) value "$@"; topology="$2"; shift 2 ;;
    --chips) value "$@"; number "$1" "$2" 1; chips="$2"; shift 2 ;;
    --image) value "$@"; image="$2"; shift 2 ;;
    --bucket) value "$@"; bucket="${2#gs://}"; shift 2 ;;
    --service-account) value "$@"; account="$2"; shift 2 ;;
    --setup) value "$@"; setup="$2"; shift 2 ;;
    --root) as_root=1; shift ;;
    --dry-run) dry_run=1; shift ;;
    --) shift; break ;;
    -h | --help) usage; exit 0 ;;
    *) unknown "$1" ;;
  esac
done
for needed in name accelerator topology image; do
  if [ -z "${!needed}" ]; then
    echo "error: --$needed is missing; see --help" >&2
    exit 2
  fi
done
something_to_run "$@"

# They become part of YAML, and bash would run what stands in $(..) in its arithmetic.
label='[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?'
form --name "$name" '[a-z]([-a-z0-9]{0,40}[a-z0-9])?' "a name of small letters, digits and -, of at most 42"
form --accelerator "$accelerator" "$label" "a value of the label gke-tpu-accelerator, such as tpu-v6e-slice"
form --topology "$topology" '[1-9][0-9]{0,4}(x[1-9][0-9]{0,4}){0,3}' "numbers with x between them, such as 4x4"
form --image "$image" '[A-Za-z0-9][-A-Za-z0-9._:/@]*' "an image without its tag, such as REGISTRY/infimmr"
form --bucket "$bucket" "($label)?" "the name of a bucket"
form --service-account "$account" "($label)?" "the name of a Kubernetes service account"

total=1
for side in ${topology//x/ }; do total=$((total * side)); done
if [ $((total % chips)) -ne 0 ]; then
  echo "error: $total chips of topology $topology are no multiple of $chips chips a host" >&2
  exit 2
fi
revision="$(revision_of "$root" "the image must be of")"

inside() { # of a JSON string; Kubernetes reads $$ as one $, and would replace $(NAME)
  local word="${1//\\/\\\\}"
  word="${word//\"/\\\"}" word="${word//$'\n'/\\n}" word="${word//$'\t'/\\t}"
  printf '%s' "${word//\$/\$\$}"
}
# Else bash 5.2 reads & in a replacement as the match.
shopt -u patsub_replacement 2>/dev/null || true
arguments=""
for word in "$@"; do arguments+="${arguments:+, }\"$(inside "$word")\""; done

file="$(cat "$root/launch/gke_jobset.yaml")"
[ -n "$bucket" ] || file="$(sed '/ --bucket$/d' <<<"$file")"
[ -z "$as_root" ] || file="$(sed '/ --root$/d' <<<"$file")"
[ -n "$account" ] || file="$(sed '/ --service-account$/d' <<<"$file")"
fill() { file="${file//"\${$1}"/$2}"; }
fill NAME "$name"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "$topology"
fill HOSTS "$((total / chips))"
fill CHIPS "$chips"
fill IMAGE "$image"
fill REVISION "$revision"
fill BUCKET "$bucket"
fill SERVICE_ACCOUNT "$account"
fill SETUP "$(inside "$setup")"
fill ARGUMENTS "[$arguments]"
if [ -n "$dry_run" ]; then
  printf '%s\n' "$file"
else
  kubectl apply -f - <<<"$file"
fi
