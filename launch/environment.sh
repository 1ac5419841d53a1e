# shellcheck shell=bash
# Sourced by the other scripts: makes .venv beside the project once, and again only when pyproject.toml changed.
# PYTHON chooses the interpreter; INFIMMR_EXTRAS (for example "cuda" or "tpu") adds optional dependencies.

prepare_environment() {
  local extras="${1:-}" python="${PYTHON:-}" wanted stamp
  if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
      if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        2>/dev/null && "$candidate" -c 'import ensurepip' 2>/dev/null; then
        python="$candidate"
        break
      fi
    done
  fi
  if [ -z "$python" ]; then
    echo "error: no Python 3.11 or newer with venv was found; install one, or point PYTHON at it" >&2
    return 2
  fi
  wanted="$({ cat pyproject.toml; echo "$extras $("$python" -VV)"; } | cksum)"
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
  .venv/bin/python -m pip install -qq --disable-pip-version-check --editable ".${extras:+[$extras]}"
  echo "$wanted" > "$stamp"
}
