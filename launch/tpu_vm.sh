#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs, trains on all its workers, and starts over when it is preempted.
#
#   launch/tpu_vm.sh [STEP] [--dry_run] --config=FILE --workdir=shared/DIR [any flag of ssanet_jax.main]
#
# Steps (without one: create, install and run, as often as the slice is preempted):
#   create   asks for the slice as a queued resource, waits until it is there; one that was preempted is replaced
#   install  copies what is committed here to all workers, installs it, mounts the bucket as shared/
#   run      trains on all workers and shows what they print; joins a training that is under way
#   delete   deletes the slice; what is in the bucket stays
#
# Every step may be given again: it does only what is missing. So the cure for most troubles, a lost connection or a
# closed laptop too, is the same command again: the training on the workers does not depend on this script.
# The data folder goes into the bucket as well, and the file of public weights: --config.data.dir=shared/CUB_200_2011
# --config.model.pretrained=shared/resnet50.pth. Each worker makes its own prepared copy of the data.
#
# Variables:
#   PROJECT      your Google Cloud project (no default)
#   ZONE         such as us-west4-a (no default)
#   BUCKET       a bucket with hierarchical namespace, without gs:// (no default; not needed by create and delete).
#                In other buckets renaming a folder is refused or not atomic, and a checkpoint ends with one.
#   NAME         of the slice (ssanet)
#   ACCELERATOR  TPU type and size (v5litepod-16)
#   RUNTIME      software version that fits it (v2-alpha-tpuv5-lite)
#   SPOT         true: cheaper, and may be preempted (true)
#   POLL         seconds between two looks at the slice (30)
#
# Needs gcloud, logged in, and git. For slices of several workers gcloud wants its key in the agent:
# ssh-add ~/.ssh/google_compute_engine. The slice's service account must be allowed to read and write the bucket.
#
# Example:
#   export PROJECT=birds ZONE=us-west4-a BUCKET=birds-runs
#   launch/tpu_vm.sh --config=configs/cub.py:paper --workdir=shared/runs/cub \
#     --config.data.dir=shared/CUB_200_2011 --config.model.pretrained=shared/resnet50.pth
#   launch/tpu_vm.sh delete

set -euo pipefail

here=${0%"${0##*/}"}  # the folder of this script, and a slash
# shellcheck source=launch/common.bash
source "${here:-./}common.bash"

run() {
  if $dry_run; then show "$@"; else "$@"; fi
}

note() {
  printf '%s\n' "$*" >&2
}

# --- On a worker, in the copied repository: `tpu_vm.sh on_worker install BUCKET` and `... on_worker run FLAGS` ---

worker_install() {
  local bucket=$1
  if ! command -v gcsfuse >/dev/null; then
    local key=/usr/share/keyrings/cloud.google.asc source=/etc/apt/sources.list.d/gcsfuse.list
    curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" |
      sudo tee "$source" >/dev/null
    sudo apt-get -qq update
    sudo apt-get -qq install -y gcsfuse
  fi
  mkdir -p shared
  mountpoint -q shared || gcsfuse --implicit-dirs "$bucket" shared

  # The image's own Python is older than 3.11.
  [[ -x $HOME/.local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
  [[ -x .venv/bin/python ]] || "$HOME/.local/bin/uv" venv --python 3.12 .venv
  "$HOME/.local/bin/uv" pip install --quiet --python .venv/bin/python --editable '.[tpu,lite0]'
}

worker_run() {
  local pid=''
  [[ ! -f run.pid ]] || pid=$(<run.pid)
  if [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null; then
    [[ $(<run.command) == "$*" ]] || fail 'another training is under way on this slice: wait for it, or delete the slice'
  else
    rm -f run.code
    printf '%s\n' "$*" >run.command
    # Of its own session, with its output in a file: it must outlive the connection that started it.
    # shellcheck disable=SC2016  # expanded by the inner shell
    nohup setsid bash -c '.venv/bin/python -m ssanet_jax.main "$@"; echo $? >run.code' training "$@" \
      >run.log 2>&1 </dev/null &
    pid=$!
    echo "$pid" >run.pid
  fi
  tail -n +1 --pid="$pid" -f run.log
  [[ -f run.code ]] || exit 1  # killed
  exit "$(<run.code)"
}

if [[ ${1:-} == on_worker ]]; then
  step=$2
  shift 2
  "worker_$step" "$@"
  exit 0
fi

# --- Here ---

step=all
case ${1:-} in
  create | install | run | delete) step=$1; shift ;;
  -* | '') ;;
  *) fail "there is no step $1: give create, install, run or delete, and see --help" ;;
esac
read_arguments 'found out from the slice' "$@"

for name in PROJECT ZONE; do
  [[ -n ${!name:-} ]] || fail "$name is not set: export $name=..., and see --help"
done
NAME=${NAME:-ssanet}
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-true}
POLL=${POLL:-30}
[[ $NAME =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "NAME=$NAME is no name for a slice: use small letters, digits and -"
[[ $SPOT == true || $SPOT == false ]] || fail "SPOT=$SPOT is neither true nor false"
if [[ $step == all || $step == install ]]; then
  [[ -n ${BUCKET:-} ]] || fail 'BUCKET is not set: export BUCKET=..., and see --help'
  [[ $BUCKET != gs://* && $BUCKET != */* ]] || fail "BUCKET=$BUCKET: give the bucket's name alone, without gs:// and folders"
fi
if [[ $step == all || $step == run ]]; then
  check_run shared/runs/NAME
  [[ $workdir == shared/?* ]] || fail "--workdir=$workdir would be lost with the slice: give --workdir=shared/..., which is the bucket"
fi
if ! $dry_run; then
  command -v gcloud >/dev/null || fail 'there is no gcloud: install it from https://cloud.google.com/sdk/docs/install'
  command -v git >/dev/null || fail 'there is no git: install it'
fi

tpus=(gcloud compute tpus)
place=(--project="$PROJECT" --zone="$ZONE" --quiet)
# Lists and filters: describing what does not exist is an error, and could not be told from other errors.
list_queued=("${tpus[@]}" queued-resources list "${place[@]}" --filter="name ~ /$NAME\$" --format='value(state.state)')
list_nodes=("${tpus[@]}" tpu-vm list "${place[@]}" --filter="name ~ /$NAME\$" --format='value(state)')
create_slice=("${tpus[@]}" queued-resources create "$NAME" "${place[@]}" --node-id="$NAME"
  --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME")
! $SPOT || create_slice+=(--spot)
# --force: the node goes as well, and what is left of a preempted one.
delete_slice=("${tpus[@]}" queued-resources delete "$NAME" "${place[@]}" --force)

slice_state() {  # absent, waiting, ready, lost or failed
  local queued node
  queued=$("${list_queued[@]}") || return 1
  case $queued in
    '') echo absent ;;
    FAILED) echo failed ;;
    SUSPENDING | SUSPENDED) echo lost ;;
    ACTIVE)
      node=$("${list_nodes[@]}") || return 1
      case $node in
        READY) echo ready ;;
        '' | PREEMPTED | TERMINATED | STOPPED) echo lost ;;
        *) echo waiting ;;
      esac
      ;;
    *) echo waiting ;;
  esac
}

look() {
  state=$(slice_state) || fail 'gcloud could not say how the slice is (see above): check PROJECT, ZONE and gcloud auth login'
}

create() {
  if $dry_run; then
    show "${list_queued[@]}"
    show "${create_slice[@]}"
    show "${list_nodes[@]}"
    return
  fi
  local state told='' asked=false
  while true; do
    look
    [[ $state == "$told" ]] || note "slice $NAME: $state"
    told=$state
    case $state in
      ready) return ;;
      absent) asked=true; "${create_slice[@]}" ;;
      lost) "${delete_slice[@]}" ;;
      failed)
        ! $asked || fail "the slice could not be made: see ${tpus[*]} queued-resources describe $NAME ${place[*]}, and check quota, ZONE, ACCELERATOR and RUNTIME"
        "${delete_slice[@]}"
        ;;
    esac
    sleep "$POLL"
  done
}

on_workers() {  # a command on all workers, in the copied repository
  run "${tpus[@]}" tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}

install() {
  local archive=${TMPDIR:-/tmp}/ssanet_jax_$NAME.tar.gz
  run git archive --format=tar.gz --output="$archive" HEAD &&
    run "${tpus[@]}" tpu-vm scp "$archive" "$NAME:ssanet_jax.tar.gz" "${place[@]}" --worker=all &&
    on_workers "mkdir -p ssanet_jax && cd ssanet_jax && tar -xzf ../ssanet_jax.tar.gz && bash launch/tpu_vm.sh on_worker install $BUCKET"
}

train() {
  on_workers "cd ssanet_jax && bash launch/tpu_vm.sh on_worker run $(show "${flags[@]}")"
}

delete() {
  if $dry_run; then
    show "${list_queued[@]}"
    show "${delete_slice[@]}"
    return
  fi
  local state
  look
  if [[ $state == absent ]]; then note "slice $NAME: absent"; else "${delete_slice[@]}"; fi
}

case $step in
  create) create ;;
  install) install ;;
  run) train ;;
  delete) delete ;;
  all)
    while true; do
      create
      code=0
      { install && train; } || code=$?
      ((code)) || break
      $dry_run || sleep "$POLL"  # a preemption shows a little later than the connection breaks
      look
      # With the slice still there the trouble lies elsewhere, and a new slice would not cure it.
      [[ $state != ready ]] || exit "$code"
    done
    $dry_run || note "done: gs://$BUCKET/${workdir#shared/}. The slice goes on costing: launch/tpu_vm.sh delete"
    ;;
esac
