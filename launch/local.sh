#!/usr/bin/env bash
# Trains with several processes on this machine's CPU, connected over loopback, to try distributed training.
#
#   launch/local.sh [--processes=N] [--dry_run] --config=FILE --workdir=DIR [any flag of ssanet_jax.main]
#
# Starts N processes (default 2) and waits for them. If one fails, the script terminates the others and exits with its
# exit code; Ctrl-C terminates all of them. The same command resumes the run, with any N.
#
# Variables:
#   PYTHON  interpreter (.venv/bin/python if it exists, else python3)
#   PORT    port of the coordinator (a free one)
#   GRACE   seconds between SIGTERM and SIGKILL (40)
#
# Example, after `make demo` has created the environment:
#   launch/local.sh --processes=2 --config=configs/demo.py --workdir=runs/demo_two

set -euo pipefail

here=${0%"${0##*/}"}  # the folder of this script, with a trailing slash
# shellcheck source=launch/common.bash
source "${here:-./}common.bash"

free_port() {  # prints a port on which no process listens
  local port
  while port=$((20000 + RANDOM % 10000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  printf '%s\n' "$port"
}

processes=2 arguments=()
for argument in "$@"; do
  case $argument in
    --processes=*) processes=${argument#*=} ;;
    *) arguments+=("$argument") ;;
  esac
done
read_arguments 'set by this script' ${arguments[@]+"${arguments[@]}"}
check_run runs/NAME
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "--processes=$processes is not a positive number: give --processes=2"

PYTHON=${PYTHON:-$(default_python)}
GRACE=${GRACE:-40}
$dry_run || check_python
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

end_all() {  # SIGTERM, wait, SIGKILL; to process groups, so that child processes are included
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

set -m  # one process group each, which Ctrl-C does not reach: end_all terminates them
for ((i = 0; i < processes; i++)); do
  "${command[@]}" --process_id="$i" </dev/null &
  pids[i]=$!
done
set +m

# Polls, because `wait -n` does not exist in the bash of macOS and misses processes that ended before it.
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    kill -KILL -- "-${pids[i]}" 2>/dev/null || true  # its child processes, if it was killed
    unset "pids[i]"
    if ((code)); then
      printf 'process %s of %s ended with exit code %s; terminating the others\n' "$i" "$processes" "$code" >&2
      exit "$code"
    fi
  done
  sleep 0.2
done
