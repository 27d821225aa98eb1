"""Export of a trained network to a StableHLO file, by `jax.export`."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.artifact.stablehlo_file import StableHloFile, pack
from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor
from ssanet_jax.errors import UserError
from ssanet_jax.export.checking import CheckImages, Difference, compare, require_same
from ssanet_jax.export.description import describe
from ssanet_jax.export.program import batch_spec, build_program
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.predictor import Predictor

PLATFORMS = ('cpu', 'cuda', 'tpu')
_SMALLEST = 512  # elements of an array; rounding fewer saves nothing


def export_stablehlo(
    predictor: Predictor, run: str, weights: str, images: CheckImages
) -> tuple[StableHloFile, Difference]:
    """Exports a network for CPUs, GPUs and TPUs, and compares the result with the original, on this device.

    Args:
      predictor: the network.
      run: name of the run.
      weights: 'float32' or 'float16'.
      images: what to compare on.

    Returns:
      The file, and the differences from the original.

    Raises:
      UserError: the network cannot be exported, or the result differs from the original.
    """
    size = predictor.inputs.image_size
    program = build_program(predictor, rounded(predictor.network) if weights == 'float16' else None)
    try:
        with _without_source_files():
            exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(batch_spec((size, size, 3), np.uint8))
        network = bytes(exported.serialize())
    except (NotImplementedError, ValueError) as error:  # an operation without a lowering, or that is not stable
        reason = ' '.join(str(error).split())[:300]
        raise UserError(f'{run} cannot be exported for {", ".join(PLATFORMS)}: {reason}') from error
    file = pack(network, describe(predictor, run, weights))
    difference = compare(predictor, StableHloPredictor(file, 'the exported network'), images.inputs)
    require_same(difference, weights)
    return pack(network, describe(predictor, run, weights, difference.describe(images))), difference


@contextlib.contextmanager
def _without_source_files() -> Iterator[None]:
    """Leaves the paths of source files out of programs, which tell where this package is installed."""
    name = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def rounded(model: SSANet) -> Callable[[], SSANet]:
    """A function that makes a network from weights of 16 bits. The computation stays in float32.

    Arrays of fewer than two dimensions, such as biases, stay as they are, and so do those beyond the range of float16.
    """
    graph, params, stats = split_model(model)
    stored = jax.tree.map(_round, params)

    def network() -> SSANet:
        return merge_model(graph, jax.tree.map(_restore, stored), stats)

    return network


def _round(array: jax.Array) -> jax.Array:
    is_weight = array.dtype == jnp.float32 and array.ndim >= 2 and array.size >= _SMALLEST
    fits = is_weight and float(jnp.abs(array).max()) <= float(jnp.finfo(jnp.float16).max)
    return array.astype(jnp.float16) if fits else array


def _restore(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float32) if array.dtype == jnp.float16 else array
