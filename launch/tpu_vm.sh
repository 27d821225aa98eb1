#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs, trains on all workers, and repeats this after a preemption.
#
#   launch/tpu_vm.sh [STEP] [--dry_run] --config=FILE --workdir=shared/DIR [any flag of ssanet_jax.main]
#
# Steps (default: create, install and run, repeated whenever the slice is preempted):
#   create   requests the slice as a queued resource and waits until it is ready; replaces a preempted slice
#   install  copies the committed files to all workers, installs the package, mounts the bucket as shared/
#   run      trains on all workers and shows their output; attaches to a training that is already running
#   delete   deletes the slice; the bucket remains
#
# Every step can be repeated and does only what is missing. After most problems, such as a lost connection, run the same
# command again: the training on the workers does not depend on this script.
# The data folder and the pretrained weights must be in the bucket too: --config.data.dir=shared/CUB_200_2011
# --config.model.pretrained=shared/resnet50.pth. Each worker prepares its own copy of the data.
#
# Variables:
#   PROJECT      your Google Cloud project (no default)
#   ZONE         such as us-west4-a (no default)
#   BUCKET       a bucket with hierarchical namespace, without gs:// (no default; not needed by create and delete).
#                Other buckets reject the rename of a folder or do not rename atomically, as checkpoints need.
#   NAME         name of the slice (ssanet)
#   ACCELERATOR  TPU type and size (v5litepod-16)
#   RUNTIME      software version for this type (v2-alpha-tpuv5-lite)
#   SPOT         true: cheaper, but may be preempted (true)
#   POLL         seconds between two queries of the slice's state (30)
#
# Needs git, and gcloud with a login. For slices with several workers gcloud needs its key in the SSH agent:
# ssh-add ~/.ssh/google_compute_engine. The slice's service account needs read and write access to the bucket.
#
# Example:
#   export PROJECT=birds ZONE=us-west4-a BUCKET=birds-runs
#   launch/tpu_vm.sh --config=configs/cub.py:paper --workdir=shared/runs/cub \
#     --config.data.dir=shared/CUB_200_2011 --config.model.pretrained=shared/resnet50.pth
#   launch/tpu_vm.sh delete

set -euo pipefail

here=${0%"${0##*/}"}  # the folder of this script, with a trailing slash
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
    [[ $(<run.command) == "$*" ]] || fail 'another training is running on this slice: wait for it, or delete the slice'
  else
    rm -f run.code
    printf '%s\n' "$*" >run.command
    # In its own session, with its output in a file, so that it survives the loss of the connection.
    # shellcheck disable=SC2016  # expanded by the inner shell
    nohup setsid bash -c '.venv/bin/python -m ssanet_jax.main --cluster=gcetpu "$@"; echo $? >run.code' training "$@" \
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

# --- On this machine ---

step=all
case ${1:-} in
  create | install | run | delete) step=$1; shift ;;
  -* | '') ;;
  *) fail "no step $1: give create, install, run or delete, and see --help" ;;
esac
read_arguments 'set by the slice' "$@"

for name in PROJECT ZONE; do
  [[ -n ${!name:-} ]] || fail "$name is not set: export $name=..., and see --help"
done
NAME=${NAME:-ssanet}
ACCELERATOR=${ACCELERATOR:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-true}
POLL=${POLL:-30}
[[ $NAME =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "NAME=$NAME is not a valid name of a slice: use small letters, digits and -"
[[ $SPOT == true || $SPOT == false ]] || fail "SPOT=$SPOT is neither true nor false"
if [[ $step == all || $step == install ]]; then
  [[ -n ${BUCKET:-} ]] || fail 'BUCKET is not set: export BUCKET=..., and see --help'
  [[ $BUCKET != gs://* && $BUCKET != */* ]] || fail "BUCKET=$BUCKET: give only the name of the bucket, without gs:// and folders"
fi
if [[ $step == all || $step == run ]]; then
  check_run shared/runs/NAME
  [[ $workdir == shared/?* ]] || fail "--workdir=$workdir would be lost with the slice: give --workdir=shared/..., which is the bucket"
fi
if ! $dry_run; then
  command -v gcloud >/dev/null || fail 'no gcloud found: install it from https://cloud.google.com/sdk/docs/install'
  command -v git >/dev/null || fail 'no git found: install it'
fi

tpus=(gcloud compute tpus)
place=(--project="$PROJECT" --zone="$ZONE" --quiet)
# Lists with a filter, because describing a missing resource fails in the same way as other errors.
list_queued=("${tpus[@]}" queued-resources list "${place[@]}" --filter="name ~ /$NAME\$" --format='value(state.state)')
list_nodes=("${tpus[@]}" tpu-vm list "${place[@]}" --filter="name ~ /$NAME\$" --format='value(state)')
create_slice=("${tpus[@]}" queued-resources create "$NAME" "${place[@]}" --node-id="$NAME"
  --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME")
! $SPOT || create_slice+=(--spot)
# --force also deletes the node, and the remains of a preempted one.
delete_slice=("${tpus[@]}" queued-resources delete "$NAME" "${place[@]}" --force)

slice_state() {  # prints absent, waiting, ready, lost or failed
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

query_state() {
  state=$(slice_state) || fail 'gcloud failed to query the slice (see above): check PROJECT, ZONE and gcloud auth login'
}

create() {
  if $dry_run; then
    show "${list_queued[@]}"
    show "${create_slice[@]}"
    show "${list_nodes[@]}"
    return
  fi
  local state previous='' requested=false
  while true; do
    query_state
    [[ $state == "$previous" ]] || note "slice $NAME: $state"
    previous=$state
    case $state in
      ready) return ;;
      absent) requested=true; "${create_slice[@]}" ;;
      lost) "${delete_slice[@]}" ;;
      failed)
        ! $requested || fail "the slice could not be created: see ${tpus[*]} queued-resources describe $NAME ${place[*]}, and check quota, ZONE, ACCELERATOR and RUNTIME"
        "${delete_slice[@]}"
        ;;
    esac
    sleep "$POLL"
  done
}

on_workers() {  # runs a command on all workers
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
  query_state
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
      $dry_run || sleep "$POLL"  # the preemption becomes visible a little after the connection breaks
      query_state
      # If the slice is still ready, a new one would not help, unless SIGTERM ended the training (75).
      [[ $state != ready ]] || ((code == 75)) || exit "$code"
    done
    $dry_run || note "done: gs://$BUCKET/${workdir#shared/}. The slice still costs money: launch/tpu_vm.sh delete"
    ;;
esac
