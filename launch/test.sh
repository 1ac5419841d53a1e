#!/usr/bin/env bash
# Installs the test extra into .venv and runs every check: style, types, all tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=environment.sh
. launch/environment.sh
prepare_environment test

# nproc would say 1 with OMP_NUM_THREADS=1, so it is asked before.
processes="${INFIMMR_TEST_PROCESSES:-$(nproc)}"
# One thread a process: the workers of pytest share the cores, and two busy PyTorch threads are slower than one.
export OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=2 JAX_PLATFORMS=cpu
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# In the order of tests/conftest.py. Tests marked `release` compile for minutes what seldom changes: add -m release.
exec .venv/bin/python -m pytest --numprocesses "$processes" --dist loadfile --no-loadscope-reorder -m "not release" "$@"
