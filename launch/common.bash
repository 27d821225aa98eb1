# Functions shared by the scripts of this folder.

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

usage() {  # prints the comment at the top of the script
  local line
  while IFS= read -r line && [[ $line == '#'* ]]; do
    [[ $line == '#!'* ]] || printf '%s\n' "${line:2}"
  done <"$0"
}

show() {  # prints a command, quoted for the shell
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

dry_run=false config='' workdir='' flags=()

# shellcheck disable=SC2034  # the scripts read dry_run
read_arguments() {  # REASON ARGUMENTS: the reason why flags of the processes are rejected
  local argument reason=$1
  shift
  for argument in "$@"; do
    case $argument in
      --help | -h) usage; exit 0 ;;
      --dry_run) dry_run=true; continue ;;
      --coordinator* | --process* | --cluster*) fail "${argument%%=*} is $reason: leave it out, and see --help" ;;
      --config=*) config=${argument#*=} ;;
      --workdir=*) workdir=${argument#*=} ;;
    esac
    flags+=("$argument")
  done
  # After the loop, so that --help works in every folder.
  [[ -f ssanet_jax/main.py ]] || fail 'ssanet_jax/main.py not found: start this from the root of the repository'
}

check_run() {  # EXAMPLE: an example of a work directory
  [[ -n $config ]] || fail 'missing --config: give --config=configs/cub.py, and see --help'
  [[ -n $workdir ]] || fail "missing --workdir: give --workdir=$1, and see --help"
  [[ -f ${config%%:*} ]] || fail "no configuration file ${config%%:*}: check --config"
}

default_python() {
  if [[ -x .venv/bin/python ]]; then echo .venv/bin/python; else echo python3; fi
}

check_python() {
  command -v "$PYTHON" >/dev/null || fail "no $PYTHON found: run make demo, or set PYTHON"
  "$PYTHON" -c 'import ssanet_jax' 2>/dev/null || fail "$PYTHON cannot import ssanet_jax: run make demo, or set PYTHON"
}
