"""The training step of a stage, compiled for devices that are not there, and what the compiler says of it."""

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
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.preflight.chips import Topology, example
from ssanet_jax.preflight.hlo import Collective, read_collectives
from ssanet_jax.preflight.traffic import hbm_bytes, kernel_cycles
from ssanet_jax.runs.run import active_groups, build_model
from ssanet_jax.training.step import TrainState, make_train_step

# libtpu would ask Cloud for a TPU of this machine, claim it, and write logs about finding none.
_TPU_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',  # of a machine with TPUs; the topology comes from --topology
    'TPU_LOG_DIR': 'disabled',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_STEPS_PER_EPOCH = 1000.0  # of the rate's schedule, which makes no difference to the program
AHEAD = 2  # batches that `sharding.prefetch_to_device` keeps on the devices beside the one at work
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Memory(NamedTuple):
    """Bytes on each device."""

    parameters: int
    optimizer: int
    inputs: int  # batches (those ahead too), BatchNorm statistics, and what a TPU's tiles add to any argument
    temporary: int  # activations, gradients and work space
    code: int  # the program itself

    @property
    def total(self) -> int:
        return sum(self)


class Program(NamedTuple):
    """What one device does in a step."""

    memory: Memory
    flops: float
    bytes: float  # to and from memory
    collectives: list[Collective]
    cycles: float = 0.0  # that TPU's compiler reckons with; 0 where it does not say


class Overflow(NamedTuple):
    """The compiler refused: the step does not fit."""

    total: float  # bytes that it would take, at least; infinity where the compiler does not say


class Step(NamedTuple):
    """A stage's step and the shapes of all it works on, each with its place on the mesh."""

    run: Callable
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]


def use_cpu_alone(topology: Topology) -> None:
    """Keeps JAX off all accelerators of this machine; to be called before it touches a device.

    GPUs are stood in for by as many devices of the CPU, so that the compiler splits the step over them.

    Raises:
      UserError: libtpu is not installed, for a TPU slice.
    """
    if topology.chip.kind == 'tpu' and importlib.util.find_spec('libtpu') is None:
        raise UserError(
            f"--topology={topology.name} needs the package libtpu, TPU's compiler; run: pip install '.[preflight]'"
        )
    os.environ.update(_TPU_ENVIRONMENT)
    jax.config.update('jax_platforms', 'cpu')
    # JAX writes programs for absent devices to its cache, but fails to read them again.
    jax.config.update('jax_enable_compilation_cache', topology.chip.kind == 'gpu')
    if topology.chip.kind == 'gpu':
        jax.config.update('jax_num_cpu_devices', topology.devices)


def find_devices(topology: Topology) -> Sequence[jax.Device]:
    """The devices for which a step is compiled; they need not be there.

    Raises:
      UserError: libtpu knows no such slice.
    """
    if topology.chip.kind == 'gpu':
        return jax.devices()[: topology.devices]
    # Without it each of the two cores of a v4 chip would be a device with half of the memory.
    options = {'chip_config_name': 'megacore'} if topology.chip.name == 'v4' else {}
    try:
        return topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **options).devices
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'--topology={topology.name}: libtpu knows no such slice ({reason}); give another, such as '
            f'{example(topology.chip)}'
        ) from error


def make_mesh(config: ConfigDict, batch: int, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh on which training would put a batch of so many images.

    Raises:
      UserError: `config.mesh` does not suit the devices.
    """
    return sharding.make_mesh(devices, config.mesh.shape, batch)


def make_step(config: ConfigDict, index: int, classes: int, batch: int, mesh: Mesh) -> Step:
    """The step of a stage, as training makes it. No weight is read or drawn: only shapes matter.

    Args:
      config: the whole configuration.
      index: of the stage.
      classes: N.
      batch: images, over all devices.
      mesh: of `make_mesh`.

    Raises:
      UserError: for settings that do not fit together.
    """
    row, active = config.stages[index], active_groups(config.stages, index)
    model = nnx.eval_shape(lambda: build_model(config, classes, pretrained=False))
    optimizer, run = make_train_step(model, row, active, config, _STEPS_PER_EPOCH, mesh)
    _, params, stats = split_model(model)
    state = TrainState(params, stats, jax.eval_shape(optimizer.init, params), _like((), jnp.int32))
    size = config.data.image_size
    images = {'image': _like((batch, size, size, 3), jnp.uint8), 'label': _like((batch,), jnp.int32)}
    split = PartitionSpec() if batch % mesh.shape[sharding.DATA] else PartitionSpec(sharding.DATA)
    return Step(
        run,
        jax.tree.map(_placed, state, sharding.state_shardings(state, mesh, config.mesh.shard_heads)),
        {name: _placed(x, NamedSharding(mesh, split)) for name, x in images.items()},
    )


def compile_step(step: Step, topology: Topology) -> Program | Overflow:
    """Compiles a step and reads what the compiler says of it.

    For a TPU slice that is the program which the slice would run. For GPUs memory, bytes and collectives are
    those of the same step compiled for CPU devices, and FLOPs those of the step for GPUs before its
    optimisation: estimates.

    Args:
      step: of `make_step`.
      topology: of the devices in its mesh.
    """
    traced = step.run.trace(step.state, step.batch)
    arguments = (device_bytes(step.state.params), device_bytes(step.state.opt))
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return Overflow(sum(arguments) + bytes_required(str(error)))
    used = compiled.memory_analysis()
    taken = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
    memory = Memory(
        *arguments,
        inputs=max(taken - sum(arguments), 0) + AHEAD * device_bytes(step.batch),
        temporary=used.temp_size_in_bytes,
        code=used.generated_code_size_in_bytes if topology.chip.kind == 'tpu' else 0,
    )
    text, cost = compiled.as_text(), compiled.cost_analysis()
    collectives = read_collectives(text, topology.devices)
    if topology.chip.kind == 'tpu':
        return Program(memory, cost['flops'], hbm_bytes(text), collectives, kernel_cycles(text))
    # The CPU has its own depthwise convolution, in a loop that the count would take for one turn.
    flops = traced.lower(lowering_platforms=('cuda',)).cost_analysis()['flops']
    return Program(memory, flops / topology.devices, cost['bytes accessed'], collectives)


def device_bytes(tree: Any) -> int:
    """Bytes that a tree of placed shapes takes on each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def bytes_required(message: str) -> float:
    """Bytes that a step needs, from XLA's message that it does not fit; infinity where it does not say."""
    found = re.search(r'\(([\d.]+)([KMGT]?)\)\s+exceeds', message) or re.search(r'Used ([\d.]+)([KMGT]?) of', message)
    return float(found[1]) * _UNITS[found[2]] if found else math.inf


def _like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _placed(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
