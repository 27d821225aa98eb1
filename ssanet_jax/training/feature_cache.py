"""Features of the training images, kept on disk while everything that computes them is frozen.

A stage that trains only heads passes the same images through the same backbone in every epoch. With
`stage(..., cache=V)`, V augmented views of each image pass through it once: those that the first V epochs would read.
The epochs then read features instead of images, epoch e those of view e mod V, and cost what the heads cost.

The files are in the stage's folder and are deleted when the stage is over. Process p of P writes the features that it
computed: record j of its file belongs to position j * P + p of the common order (`pipeline.shuffled_indices`).
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ssanet_jax.data.pipeline import num_steps, read_options, shuffled_indices, train_batches
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import UPRIGHT
from ssanet_jax.models.outputs import PartFeatures
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.plain_text import track
from ssanet_jax.runs.files import CONFIG_FILE
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.feature_file import FeatureFile, FeatureLayout, delete_other_files, features_path
from ssanet_jax.training.step import TrainState, needs_proposal_features, stage_losses

_SYNC_BATCHES = 50  # a killed process loses at most as many
_FEATURE_GROUPS = ('backbone', 'proposals', 'scale_mining', UPRIGHT)  # groups whose weights the features depend on

ExtractFeatures = Callable[[Any, Any, Any], PartFeatures]  # (params, stats, images)


def cached_batches(context: StageContext, state: TrainState) -> Iterator[dict[str, Any]]:
    """The batches of a stage from `state.step` on, as `train_batches` gives them, with features in place of images.

    Computes the features first, or those that an earlier start has not computed.

    Args:
      context: the stage; its `cache` is V.
      state: its parameters compute the features.

    Returns:
      An iterator of `{'features': PartFeatures, 'label', 'index', 'skipped': int32 [b]}` on the host.

    Raises:
      UserError: the disk is too small for the features, or the images cannot be read.
    """
    losses = stage_losses(context.active, context.stage.train, context.config.loss.weights)
    extract_features = make_extract_features(
        context.model, context.active, needs_proposal_features(losses), context.mesh
    )
    one_image = jax.ShapeDtypeStruct((1, *(context.config.data.image_size,) * 2, 3), np.uint8)
    layout = FeatureLayout.of(jax.eval_shape(extract_features, state.params, state.stats, one_image))
    _compute_features(context, state, extract_features, layout)
    return _read_batches(context, layout, int(state.step))


def folder(workdir: Path, stage: str) -> Path:
    """The folder of a stage's features while it trains."""
    return workdir / stage / 'features'


def remove(workdir: Path, stage: str) -> None:
    """Deletes the features of a stage, if it has any."""
    if processes.is_primary_process():
        shutil.rmtree(folder(workdir, stage), ignore_errors=True)


def make_extract_features(model: SSANet, active: Collection[str], training: bool, mesh: Mesh) -> ExtractFeatures:
    """A compiled `(params, stats, images) -> PartFeatures`, with BatchNorm at its running statistics.

    Args:
      model: gives the structure; its arrays and its mode are neither read nor changed.
      active: groups trained by the end of the stage.
      training: extract the features of all M proposals, not only of the K parts.
      mesh: the devices.
    """
    graph, _, _ = split_model(nnx.view(model, use_running_average=True, raise_if_not_found=False))

    @jax.jit
    def extract_features(params, stats, images):
        features = merge_model(graph, params, stats).extract_features(
            sharding.constrain_batch(images, mesh),
            active=active,
            training=training,
            map_candidates=partial(candidate_map, mesh=mesh),
        )
        if features.regions is not None:
            # The maps of the whole image are large, and `check_settings` refuses the head that reads them.
            features = features._replace(regions=features.regions._replace(levels=()))
        return sharding.constrain_batch(features, mesh)

    return extract_features


def _compute_features(
    context: StageContext, state: TrainState, extract_features: ExtractFeatures, layout: FeatureLayout
) -> None:
    """Writes the features of all views that are not on the disk yet."""
    stage, data, source = context.stage, context.config.data, context.dataset.train
    process, directory = processes.current(), folder(context.workdir, stage.name)
    num_batches = num_steps(stage.cache, len(source), data.batch_size)
    batch_bytes = data.batch_size // process.count * layout.dtype.itemsize  # of this process's share

    file = FeatureFile(directory, process.index, _cache_key(context, state, layout, process.count))
    if processes.is_primary_process():
        delete_other_files(directory, process.count)
    # Processes work on each batch together, so all go on from the one that has written least.
    done = min(processes.gather_distinct([file.written // batch_bytes]))
    if done < num_batches:
        _check_disk_space(directory, (num_batches - done) * batch_bytes * process.count, context.index)
        gigabytes = num_batches * batch_bytes * process.count / 1e9
        context.print(f'computing features of {stage.cache} x {len(source)} images once, {gigabytes:.1f} GB')

    images = train_batches(
        source, data, seed=context.seed, epochs=stage.cache, start=done * data.batch_size, process=process
    )
    computed = _extract_batches(extract_features, state, sharding.prefetch_to_device(images, context.mesh, ('image',)))
    progress = track(
        sharding.buffered(computed, 1),  # the devices work on the next batch while the host writes this one
        stage.name,
        total=num_batches - done,
        console=context.console,
        transient=True,
    )
    with file.writing(done * batch_bytes):
        for number, (batch, features) in enumerate(progress, done + 1):
            file.append(layout.pack(jax.tree.map(_to_host, features), batch))
            if number % _SYNC_BATCHES == 0 or number == num_batches:
                file.sync()
    processes.barrier(f'features of {stage.name}')


def _extract_batches(
    extract_features: ExtractFeatures,
    state: TrainState,
    batches: Iterable[tuple[dict[str, np.ndarray], dict[str, jax.Array]]],
) -> Iterator[tuple[dict[str, np.ndarray], PartFeatures]]:
    """Yields each batch with its features, which the devices may still be computing."""
    for number, (batch, on_device) in enumerate(batches):
        arguments = state.params, state.stats, on_device['image']
        if not number:
            processes.compile_together(extract_features, *arguments)
        yield batch, extract_features(*arguments)


def _read_batches(context: StageContext, layout: FeatureLayout, first_step: int) -> Iterator[dict[str, Any]]:
    """Reads the batches of the stage's epochs from the files of all processes."""
    stage, data, num_images = context.stage, context.config.data, len(context.dataset.train)
    process, directory = processes.current(), folder(context.workdir, stage.name)
    files = [np.memmap(features_path(directory, number), layout.dtype, 'r') for number in range(process.count)]
    cached_position = _cached_positions(num_images, context.seed, stage.cache)

    def read(position: int) -> dict[str, Any]:
        record, file = divmod(cached_position(position), process.count)
        return layout.unpack(files[file][record])

    share = data.batch_size // process.count
    start = first_step * data.batch_size + process.index
    stop = num_steps(stage.epochs, num_images, data.batch_size) * data.batch_size
    positions = grain.MapDataset.range(stop).slice(slice(start, stop, process.count))
    return iter(positions.map(read).to_iter_dataset(read_options(data, share)).batch(share))


def _cached_positions(num_images: int, seed: int, num_views: int) -> Callable[[int], int]:
    """Finds the features of a position in the common order.

    Returns:
      A function from a position to the position of the same image in the pass that its features come from, one of
      the first `num_views` passes.
    """
    order = shuffled_indices(num_images, seed)
    positions = np.empty((num_views, num_images), np.int64)  # of each image in each of these passes
    for view in range(num_views):
        in_pass = range(view * num_images, (view + 1) * num_images)
        positions[view, np.array([order[position] for position in in_pass])] = in_pass
    return lambda position: int(positions[position // num_images % num_views, order[position]])


def _to_host(array: jax.Array) -> np.ndarray:
    """The images of this process in an array that is split over the devices of all, in the order of the batch."""
    pieces = {piece.index[0].start or 0: piece.data for piece in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def _cache_key(context: StageContext, state: TrainState, layout: FeatureLayout, num_processes: int) -> dict[str, Any]:
    """The key of a cache. Features stored under another key are discarded.

    Groups that train are left out: features do not depend on them (`check_stages`), and a resumed stage starts with
    other weights than it computed its features with.
    """
    digest = hashlib.sha256((context.workdir / CONFIG_FILE).read_bytes())
    digest.update(str(layout.dtype.descr).encode())
    trained = context.stage.train
    frozen = {name: params for name, params in state.params.items() if name in _FEATURE_GROUPS and name not in trained}
    digest.update(np.array(jax.tree.leaves(_fingerprints((frozen, state.stats)))).tobytes())
    return {'network': digest.hexdigest(), 'processes': num_processes}


@jax.jit
def _fingerprints(tree: Any) -> Any:
    """A 32-bit number per array, computed on the devices: DSM may be split over many processes."""

    def fingerprint(x):
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).ravel()
        return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1))

    return jax.tree.map(fingerprint, tree)


def _check_disk_space(directory: Path, needed: int, index: int) -> None:
    """Raises `UserError` if the disk has fewer than `needed` bytes left."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f'the features that config.stages[{index}].cache keeps take {needed / 1e9:.1f} GB, and {directory} has '
            f'{free / 1e9:.1f} GB left: lower cache, set it to 0, or give a --workdir on a larger disk'
        )
