"""Predictions by a StableHLO file and JAX, without Flax and the code of the network."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

from ssanet_jax.artifact.artifact_predictor import ArtifactPredictor, first_line, other_interface
from ssanet_jax.artifact.stablehlo_file import StableHloFile
from ssanet_jax.errors import UserError

_DIALECTS = ('builtin', 'func', 'stablehlo')
# Calls of code outside of the program are custom calls. Only this one remains in a program of JAX that has a symbolic
# batch, and JAX itself removes it before it compiles: it checks the size of the batch.
_CUSTOM_CALLS = ('shape_assertion',)
# Operations that wait for other devices or for the host.
_COMMUNICATION = frozenset(
    f'stablehlo.{name}'
    for name in 'after_all all_gather all_reduce all_to_all collective_broadcast collective_permute create_token '
    'cross-replica-sum infeed outfeed partition_id recv reduce_scatter replica_id send'.split()
)


class StableHloPredictor(ArtifactPredictor):
    """Predicts classes and parts of photos with a function that JAX exported.

    It runs on the first device of JAX, and is compiled once per number of images.

    Args:
      file: the checked file.
      name: its name, for messages.

    Raises:
      UserError: this version of JAX cannot read the network, it was exported for other devices, or it has operations
        that no export has.
    """

    def __init__(self, file: StableHloFile, name: str = 'the model'):
        network = _deserialize(file.network, name)
        platform = jax.default_backend()
        names = {'gpu': ('cuda', 'rocm')}.get(platform, (platform,))
        if not set(names) & set(network.platforms):
            raise UserError(
                f'{name} was exported for {", ".join(network.platforms)}, and JAX runs on {platform} here: set '
                f'JAX_PLATFORMS to one of them, or export the run for ONNX'
            )
        _check_interface(network, file.metadata.preprocessing.image_size, name)
        keys = network.out_tree.unflatten(range(network.out_tree.num_leaves))
        types = {key: network.out_avals[place].dtype.type for key, place in keys.items()}
        super().__init__(file.data, file.metadata, types, name)
        self._call = jax.jit(network.call)

    def _compute(self, images: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            found = jax.device_get(self._call(images))
        except Exception as error:  # those of forged files can be of any class
            raise UserError(f'JAX cannot run {self._name} ({first_line(error)}): export it again') from error
        return {name: found[name] for name in names}


def _deserialize(network: bytes, name: str) -> jax.export.Exported:
    """Reads a serialized function, which runs nothing of it."""
    try:
        found = jax.export.deserialize(bytearray(network))
        _check_operations(found.mlir_module_serialized)
    except UserError as error:
        raise UserError(f'cannot use {name}: {error}: export the run again') from error
    except Exception as error:  # a damaged or newer file can fail anywhere in it
        raise UserError(
            f'JAX {jax.__version__} cannot read {name} ({first_line(error)}): give a file that the same or an older '
            'version of JAX wrote'
        ) from error
    return found


def _check_operations(module: bytes) -> None:
    """Raises UserError for operations that reach outside of the program."""
    foreign = set()

    def visit(operation: ir.Operation) -> ir.WalkResult:
        name = operation.name
        if name == 'stablehlo.custom_call':
            target = ir.StringAttr(operation.attributes['call_target_name']).value
            if target not in _CUSTOM_CALLS:
                foreign.add(f'a call of {target!r}')
        elif name.partition('.')[0] not in _DIALECTS or name in _COMMUNICATION:
            foreign.add(name)
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        context.attach_diagnostic_handler(lambda diagnostic: True)  # else they are printed
        stablehlo.deserialize_portable_artifact(context, module).operation.walk(visit)
    if foreign:
        raise UserError(f'it has operations that no export has ({", ".join(sorted(foreign)[:3])})')


def _check_interface(network: jax.export.Exported, size: int, name: str) -> None:
    """Raises UserError unless a network takes one batch of images, and returns named outputs."""
    is_batch = len(network.in_avals) == 1 and network.in_avals[0].shape[1:] == (size, size, 3)
    if (
        not is_batch
        or network.in_avals[0].dtype != np.uint8
        or network.in_tree != jax.tree.structure(((0,), {}))
        or not isinstance(network.out_tree.unflatten([0] * network.out_tree.num_leaves), dict)
        or network.out_tree.num_leaves != len(network.out_avals)
        or network.nr_devices != 1
        or network.ordered_effects
        or network.unordered_effects
    ):
        raise other_interface(name)
