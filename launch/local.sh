#!/usr/bin/env bash
# Trains with several processes on the CPU of this machine, over loopback: a way to try out what a cluster would do.
#
#   launch/local.sh [--processes=N] [--dry_run] --config=FILE --workdir=DIR [any flag of ssanet_jax.main]
#
# Starts N processes (2) and waits for them. When one ends badly the others are ended too, by their ids, and its exit
# code is this script's; Ctrl-C ends all of them. The same command again goes on where the run stopped, with any N.
#
# Variables:
#   PYTHON  interpreter (.venv/bin/python where there is one, else python3)
#   PORT    where the processes meet (a free one)
#   GRACE   seconds that processes are given to end before they are killed (20)
#
# Example, after `make demo` has made the environment:
#   launch/local.sh --processes=2 --config=configs/demo.py --workdir=runs/demo_two

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

free_port() {  # a port on which nobody answers
  local port
  while port=$((20000 + RANDOM % 10000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  printf '%s\n' "$port"
}

processes=2 dry_run=false config='' workdir=''
flags=()
for argument in "$@"; do
  case $argument in
    --help | -h) usage; exit 0 ;;
    --dry_run) dry_run=true; continue ;;
    --processes=*) processes=${argument#*=}; continue ;;
    --coordinator* | --process_id*) fail "${argument%%=*} is set by this script: leave it out, and see --help" ;;
    --config=*) config=${argument#*=} ;;
    --workdir=*) workdir=${argument#*=} ;;
  esac
  flags+=("$argument")
done

[[ -n $config ]] || fail 'no configuration: give --config=configs/cub.py, and see --help'
[[ -n $workdir ]] || fail 'no folder for the run: give --workdir=runs/NAME, and see --help'
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes=$processes is no count: give --processes=2"
[[ -f ssanet_jax/main.py ]] || fail 'ssanet_jax/main.py is not here: start this from the root of the repository'
[[ -f ${config%%:*} ]] || fail "there is no configuration file ${config%%:*}: check --config"

PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
GRACE=${GRACE:-20}
if ! $dry_run; then
  command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON: run make demo, or set PYTHON"
  "$PYTHON" -c 'import ssanet_jax' 2>/dev/null || fail "$PYTHON does not find ssanet_jax: run make demo, or set PYTHON"
fi
PORT=${PORT:-$(free_port)}

command=(env JAX_PLATFORMS=cpu "$PYTHON" -m ssanet_jax.main "${flags[@]}"
  --coordinator="127.0.0.1:$PORT" --processes="$processes")

if $dry_run; then
  for ((i = 0; i < processes; i++)); do
    show "${command[@]}" --process_id="$i"
  done
  exit 0
fi

pids=()

alive() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    kill -0 -- "-$pid" 2>/dev/null && return 0
  done
  return 1
}

end_all() {  # asks, waits, kills; by process group, so that what a process started goes with it
  trap '' INT TERM HUP
  local pid until=$((SECONDS + GRACE))
  for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  while alive && ((SECONDS < until)); do sleep 0.2; done
  for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}
trap end_all EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

set -m  # a process group for each, which Ctrl-C does not reach: ending them is left to end_all
for ((i = 0; i < processes; i++)); do
  "${command[@]}" --process_id="$i" </dev/null &
  pids[i]=$!
done
set +m

# Polls, because `wait -n` is younger than the bash of macOS and misses what ended before it.
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    kill -KILL -- "-${pids[i]}" 2>/dev/null || true  # what it left behind, if it was killed itself
    unset "pids[i]"
    if ((code)); then
      printf 'process %s of %s ended with exit code %s; ending the others\n' "$i" "$processes" "$code" >&2
      exit "$code"
    fi
  done
  sleep 0.2
done
