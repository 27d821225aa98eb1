#!/usr/bin/env bash
# Trains on all GPUs of this host.
#
#   launch/multi_gpu.sh [--dry_run] --config=FILE --workdir=DIR [any flag of ssanet_jax.main]
#
# One process uses all GPUs: JAX shards each batch over all visible GPUs, without a process per GPU or a coordinator
# address. This script adds checks: without a GPU, or with a CPU-only JAX, the training would silently run on the CPU.
# The same command resumes the run, with any number of GPUs.
#
# Variables:
#   CUDA_VISIBLE_DEVICES  the GPUs to use, such as 0,1 (all)
#   PYTHON                interpreter (.venv/bin/python if it exists, else python3)
#
# Example:
#   launch/multi_gpu.sh --config=configs/cub.py:paper --workdir=runs/cub \
#     --config.data.dir=CUB_200_2011 --config.model.pretrained=resnet50.pth

set -euo pipefail

here=${0%"${0##*/}"}  # the folder of this script, with a trailing slash
# shellcheck source=launch/common.bash
source "${here:-./}common.bash"

read_arguments 'for several processes' "$@"
check_run runs/NAME
PYTHON=${PYTHON:-$(default_python)}

# Counts the GPUs with JAX, for CUDA only: otherwise JAX would fall back to the CPU. Does not allocate GPU memory.
count=(env JAX_PLATFORMS=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false
  "$PYTHON" -c 'import jax; print(jax.local_device_count())')
train=("$PYTHON" -m ssanet_jax.main "${flags[@]}")

if $dry_run; then
  show "${count[@]}"
  show "${train[@]}"
  exit 0
fi

command -v nvidia-smi >/dev/null || fail 'no nvidia-smi found: install the NVIDIA driver, or train on the CPU with python -m ssanet_jax.main'
nvidia-smi -L >/dev/null || fail 'nvidia-smi finds no GPU: check the driver'
check_python
gpus=$("${count[@]}" 2>/dev/null) || fail "JAX finds no GPU: $PYTHON -m pip install -e '.[cuda13]' (cuda12 for older drivers), and check CUDA_VISIBLE_DEVICES"

printf 'training on %s GPUs\n' "$gpus" >&2
exec "${train[@]}"
