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
# The suite compiles hundreds of small programs that run for milliseconds: LLVM's optimiser takes a third of its time.
export XLA_FLAGS="${XLA_FLAGS:---xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true}"
export INFIMMR_CACHE="${INFIMMR_CACHE:-$PWD/.cache}"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest --numprocesses "$processes" --dist loadfile "$@"
