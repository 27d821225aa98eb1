# What the scripts of this folder share.

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

usage() {  # the comment at the top of the script
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

dry_run=false config='' workdir='' flags=()

# shellcheck disable=SC2034  # the scripts read dry_run
read_arguments() {  # why the processes' own flags are not taken, and the arguments
  local argument reason=$1
  shift
  for argument in "$@"; do
    case $argument in
      --help | -h) usage; exit 0 ;;
      --dry_run) dry_run=true; continue ;;
      --coordinator* | --process*) fail "${argument%%=*} is $reason: leave it out, and see --help" ;;
      --config=*) config=${argument#*=} ;;
      --workdir=*) workdir=${argument#*=} ;;
    esac
    flags+=("$argument")
  done
  # Not before: --help works everywhere.
  [[ -f ssanet_jax/main.py ]] || fail 'ssanet_jax/main.py is not here: start this from the root of the repository'
}

check_run() {  # an example of a folder for the run
  [[ -n $config ]] || fail 'no configuration: give --config=configs/cub.py, and see --help'
  [[ -n $workdir ]] || fail "no folder for the run: give --workdir=$1, and see --help"
  [[ -f ${config%%:*} ]] || fail "there is no configuration file ${config%%:*}: check --config"
}

default_python() {
  if [[ -x .venv/bin/python ]]; then echo .venv/bin/python; else echo python3; fi
}

check_python() {
  command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON: run make demo, or set PYTHON"
  "$PYTHON" -c 'import ssanet_jax' 2>/dev/null || fail "$PYTHON does not find ssanet_jax: run make demo, or set PYTHON"
}
