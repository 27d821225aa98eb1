#!/usr/bin/env bash
# Trains on all GPUs of this host.
#
#   launch/multi_gpu.sh [--dry_run] --config=FILE --workdir=DIR [any flag of ssanet_jax.main]
#
# One process drives them all: JAX spreads each batch over every GPU that it sees, so that there is nothing to start
# per GPU and no address to agree on. What this script adds are the checks: without a GPU, or with a JAX that was
# installed for the CPU, the training would run on the CPU and say so only by being slow.
# The same command again goes on where the run stopped, with any number of GPUs.
#
# Variables:
#   CUDA_VISIBLE_DEVICES  the GPUs to use, such as 0,1 (all)
#   PYTHON                interpreter (.venv/bin/python where there is one, else python3)
#
# Example:
#   launch/multi_gpu.sh --config=configs/cub.py:paper --workdir=runs/cub --config.data.dir=CUB_200_2011

set -euo pipefail

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

usage() {  # the comment at the top of this file
  local line
  while IFS= read -r line && [[ $line == '#'* ]]; do
    [[ $line == '#!'* ]] || printf '%s\n' "${line:2}"
  done <"$0"
}

show() {  # a command as one could type it
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

dry_run=false config='' workdir=''
flags=()
for argument in "$@"; do
  case $argument in
    --help | -h) usage; exit 0 ;;
    --dry_run) dry_run=true; continue ;;
    --coordinator* | --process*) fail "${argument%%=*} is for several processes: leave it out, and see --help" ;;
    --config=*) config=${argument#*=} ;;
    --workdir=*) workdir=${argument#*=} ;;
  esac
  flags+=("$argument")
done

[[ -n $config ]] || fail 'no configuration: give --config=configs/cub.py, and see --help'
[[ -n $workdir ]] || fail 'no folder for the run: give --workdir=runs/NAME, and see --help'
[[ -f ssanet_jax/main.py ]] || fail 'ssanet_jax/main.py is not here: start this from the root of the repository'
[[ -f ${config%%:*} ]] || fail "there is no configuration file ${config%%:*}: check --config"

PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}

# Asks JAX itself, and asks for CUDA alone: with a CPU to fall back on it would not complain. Takes no memory.
count=(env JAX_PLATFORMS=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false
  "$PYTHON" -c 'import jax; print(jax.local_device_count())')
train=("$PYTHON" -m ssanet_jax.main "${flags[@]}")

if $dry_run; then
  show "${count[@]}"
  show "${train[@]}"
  exit 0
fi

command -v nvidia-smi >/dev/null || fail 'there is no nvidia-smi: install the NVIDIA driver, or train on the CPU with python -m ssanet_jax.main'
nvidia-smi -L >/dev/null || fail 'nvidia-smi finds no GPU: check the driver'
command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON: run make demo, or set PYTHON"
"$PYTHON" -c 'import ssanet_jax' 2>/dev/null || fail "$PYTHON does not find ssanet_jax: run make demo, or set PYTHON"
gpus=$("${count[@]}" 2>/dev/null) || fail "JAX finds no GPU: $PYTHON -m pip install -e '.[cuda12]' (or cuda13), and check CUDA_VISIBLE_DEVICES"

printf 'training on %s GPUs\n' "$gpus" >&2
exec "${train[@]}"
