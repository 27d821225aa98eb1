"""Compiles the training step of a stage for absent devices, and reads its memory, FLOPs and collectives."""

import importlib.util
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.preflight.chips import Topology, example
from ssanet_jax.preflight.collectives import Collective, read_collectives
from ssanet_jax.preflight.memory_traffic import hbm_bytes, kernel_cycles
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.step import TrainState, make_train_step

# Keeps libtpu from looking for a TPU on this machine, claiming it, and logging that there is none.
_TPU_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',  # any will do: the topology comes from --topology
    'TPU_LOG_DIR': 'disabled',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_STEPS_PER_EPOCH = 1000.0  # any value: the learning rate schedule does not change the program's cost
PREFETCHED = 2  # batches that `sharding.prefetch_to_device` keeps on the devices besides the current one
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Memory(NamedTuple):
    """Bytes on each device."""

    parameters: int
    optimizer: int
    inputs: int  # batches (prefetched ones too), BatchNorm statistics, and the padding of all arguments to TPU tiles
    temporary: int  # activations, gradients and work space
    code: int  # the program itself

    @property
    def total(self) -> int:
        return sum(self)


class CompiledStep(NamedTuple):
    """Cost of a training step on one device."""

    memory: Memory
    flops: float
    bytes: float  # to and from memory
    collectives: list[Collective]
    cycles: float = 0.0  # the TPU compiler's estimate; 0 if it gives none


class OutOfMemory(NamedTuple):
    """The compiler refused the step because it does not fit."""

    total: float  # lower bound of the bytes it needs; infinity if the compiler does not say


class Step(NamedTuple):
    """A stage's training step and the shapes and shardings of its arguments."""

    run: Callable
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]


def use_cpu_only(topology: Topology) -> None:
    """Hides all accelerators of this machine from JAX; call it before JAX initializes its devices.

    For GPUs, the same number of CPU devices takes their place, so that the compiler partitions the step.

    Raises:
      UserError: libtpu is not installed, for a TPU slice.
    """
    if topology.chip.kind == 'tpu' and importlib.util.find_spec('libtpu') is None:
        raise UserError(
            f"--topology={topology.name} needs the package libtpu, TPU's compiler; run: pip install '.[preflight]'"
        )
    os.environ.update(_TPU_ENVIRONMENT)
    jax.config.update('jax_platforms', 'cpu')
    # JAX writes programs for absent devices to its cache, but cannot read them back.
    jax.config.update('jax_enable_compilation_cache', topology.chip.kind == 'gpu')
    if topology.chip.kind == 'gpu':
        jax.config.update('jax_num_cpu_devices', topology.devices)


def find_devices(topology: Topology) -> Sequence[jax.Device]:
    """The devices to compile for; those of a TPU slice are only descriptions.

    Raises:
      UserError: libtpu does not know the slice.
    """
    if topology.chip.kind == 'gpu':
        return jax.devices()[: topology.devices]
    # Without it, each of the two cores of a v4 chip would be a device with half the memory.
    options = {'chip_config_name': 'megacore'} if topology.chip.name == 'v4' else {}
    try:
        return topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **options).devices
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'--topology={topology.name}: libtpu does not know this slice ({reason}); give another, such as '
            f'{example(topology.chip)}'
        ) from error


def make_mesh(config: ConfigDict, batch: int, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh that training would use for this batch size.

    Raises:
      UserError: `config.mesh` does not match the devices.
    """
    return sharding.make_mesh(devices, config.mesh.shape, batch)


def make_step(config: ConfigDict, index: int, num_classes: int, batch: int, mesh: Mesh) -> Step:
    """The training step of a stage. No weights are read or initialized: only shapes matter.

    Args:
      config: the whole configuration.
      index: index of the stage.
      num_classes: N.
      batch: images over all devices.
      mesh: from `make_mesh`.

    Raises:
      UserError: for inconsistent settings.
    """
    stage, active = config.stages[index], active_groups(config.stages, index)
    model = nnx.eval_shape(lambda: build_model(config, num_classes, pretrained=False))
    optimizer, run = make_train_step(model, stage, active, config, _STEPS_PER_EPOCH, mesh)
    _, params, stats = split_model(model)
    step: Any = _array((), jnp.int32)  # shapes in place of arrays, as in the rest of the state
    state = TrainState(params, stats, jax.eval_shape(optimizer.init, params), step)
    size = config.data.image_size
    images = {'image': _array((batch, size, size, 3), jnp.uint8), 'label': _array((batch,), jnp.int32)}
    spec = PartitionSpec() if batch % mesh.shape[sharding.DATA] else PartitionSpec(sharding.DATA)
    return Step(
        run,
        jax.tree.map(_sharded, state, sharding.state_shardings(state, mesh, config.mesh.shard_heads)),
        {name: _sharded(x, NamedSharding(mesh, spec)) for name, x in images.items()},
    )


def compile_step(step: Step, topology: Topology, undivided: Step | None = None) -> CompiledStep | OutOfMemory:
    """Compiles a step and reads its cost.

    For a TPU slice this is the very program that the slice would run. For GPUs the results are estimates: memory,
    bytes and collectives of the step compiled for CPU devices, FLOPs of the step for GPUs before optimization.

    Args:
      step: from `make_step`.
      topology: the devices of its mesh.
      undivided: the same step on a mesh of one device, from which the FLOPs for GPUs are counted; `step` by default.
        In a step for several devices, the regions that `candidate_map` divides would count once per device, and all
        else for all devices together.
    """
    traced = step.run.trace(step.state, step.batch)
    arguments = (device_bytes(step.state.params), device_bytes(step.state.opt))
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return OutOfMemory(sum(arguments) + bytes_required(str(error)))
    used = compiled.memory_analysis()
    taken = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    memory = Memory(
        *arguments,
        inputs=max(taken - sum(arguments), 0) + PREFETCHED * device_bytes(step.batch),
        temporary=used.temp_size_in_bytes,
        code=used.generated_code_size_in_bytes if topology.chip.kind == 'tpu' else 0,
    )
    text, cost = compiled.as_text(), compiled.cost_analysis()
    collectives = read_collectives(text, topology.devices)
    if topology.chip.kind == 'tpu':
        return CompiledStep(memory, cost['flops'], hbm_bytes(text), collectives, kernel_cycles(text))
    # The CPU's own depthwise convolution is a loop, of which the count would see one iteration.
    whole = undivided.run.trace(undivided.state, undivided.batch) if undivided else traced
    flops = whole.lower(lowering_platforms=('cuda',)).cost_analysis()['flops']
    return CompiledStep(memory, flops / topology.devices, cost['bytes accessed'], collectives)


def device_bytes(tree: Any) -> int:
    """Bytes per device of a tree of sharded shapes."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def bytes_required(message: str) -> float:
    """Bytes that a step needs, from XLA's out-of-memory message; infinity if it does not say."""
    found = re.search(r'\(([\d.]+)([KMGT]?)\)\s+exceeds', message) or re.search(r'Used ([\d.]+)([KMGT]?) of', message)
    return float(found[1]) * _UNITS[found[2]] if found else math.inf


def _array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _sharded(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
