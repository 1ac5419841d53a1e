#!/usr/bin/env bash
# Builds the image of the revision that is checked out here, tags it with the revision, and pushes it:
#
#   bash launch/image.sh --image REGISTRY/infimmr
#
# What is built is a clone, so that neither changes that are not committed nor data, runs and .venv get into the image.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=options.sh
. "$root/launch/options.sh"

usage() {
  header_of "${BASH_SOURCE[0]}"
  cat <<'TEXT'
Options:
  --image IMAGE     image without its tag
  --extras EXTRAS   optional dependencies: tpu (the default) or cuda
  --base IMAGE      base image, such as python@sha256:DIGEST (the Dockerfile's)
  --dry-run         print every command, and run none
TEXT
}

image="" extras=tpu base="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    --image) value "$@"; image="$2"; shift 2 ;;
    --extras) value "$@"; extras="$2"; shift 2 ;;
    --base) value "$@"; base="$2"; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown option $1; see --help" >&2; exit 2 ;;
  esac
done
if [ -z "$image" ]; then
  echo "error: --image is missing; see --help" >&2
  exit 2
fi

form --image "$image" '[A-Za-z0-9][-A-Za-z0-9._:/@]*' "an image without its tag, such as REGISTRY/infimmr"
form --extras "$extras" 'tpu|cuda' "tpu or cuda"
form --base "$base" '([A-Za-z0-9][-A-Za-z0-9._:/@]*)?' "an image with its tag or digest"

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

revision="$(revision_of "$root" "the image holds")"
context=DIRECTORY
if [ -z "$dry_run" ]; then
  context="$(mktemp -d)"
  trap 'rm -rf "$context"' EXIT
fi
# With its history's last commit: a run in the image asks git for its revision.
run git clone --quiet --depth 1 "file://$root" "$context"
run docker build --tag "$image:$revision" --build-arg "EXTRAS=$extras" ${base:+--build-arg "BASE=$base"} \
  --file "$context/launch/Dockerfile" "$context"
run docker push "$image:$revision"
