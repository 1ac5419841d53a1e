# shellcheck shell=bash
# Sourced by the other scripts: makes .venv beside the project once, and again only when pyproject.toml or the
# constraints changed.
# PYTHON chooses the interpreter; INFIMMR_EXTRAS (for example "cuda" or "tpu") adds optional dependencies. The versions
# are those of launch/constraints.txt; INFIMMR_CONSTRAINTS takes another file, or none where it is empty.

find_python() { # the first one that is new enough and can make environments
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null && "$candidate" -c 'import ensurepip' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

bring_python() { # for a machine that is ours alone: the images of TPU VMs have Python 3.10
  if [ -n "${PYTHON:-}" ] || find_python >/dev/null; then return 0; fi
  echo "There is no Python 3.11 or newer here; uv brings one ..."
  # Not apt: the python3.11 of Ubuntu 22.04 is a release candidate.
  python3 -m pip install --quiet --user uv && python3 -m uv python install --quiet --managed-python 3.12 &&
    PYTHON="$(python3 -m uv python find --managed-python --system 3.12)"
}

prepare_environment() {
  local extras="${1:-}" python="${PYTHON:-}" wanted stamp
  if [ -z "$python" ] && ! python="$(find_python)"; then
    echo "error: no Python 3.11 or newer with venv was found; install one, or point PYTHON at it" >&2
    return 2
  fi
  local constraints="${INFIMMR_CONSTRAINTS-launch/constraints.txt}"
  wanted="$({ cat pyproject.toml ${constraints:+"$constraints"}; echo "$extras $("$python" -VV)"; } | cksum)"
  stamp=".venv/.installed-$(echo "$extras" | tr -c 'a-z0-9\n' '-')"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return 0
  fi
  [ -d .venv ] || "$python" -m venv .venv
  echo "Installing into .venv (a few minutes the first time) ..."
  .venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade pip
  case ",$extras," in
    *,test,*)
      # Pinned before the rest: a plain "torch" would bring gigabytes of CUDA packages where a CPU build is at hand.
      .venv/bin/python -c 'import torch' 2>/dev/null ||
        .venv/bin/python -m pip install -qq --disable-pip-version-check torch==2.13.0
      ;;
  esac
  .venv/bin/python -m pip install -qq --disable-pip-version-check ${constraints:+--constraint "$constraints"} \
    --editable ".${extras:+[$extras]}"
  echo "$wanted" > "$stamp"
}
