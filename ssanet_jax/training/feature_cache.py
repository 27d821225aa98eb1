"""Descriptions of the training images, kept on disk while all that makes them is frozen.

A stage that trains heads alone passes the same images through the same backbone in every epoch. With
`stage(..., cache=V)` it describes V augmented views of each image once, those that its first V epochs would see.
Its epochs then read descriptions instead of images, epoch e the view e mod V, and cost what the heads cost.

The files lie in the stage's folder and go when the stage is over. Process p of P writes what it described: row j
of its file is place j * P + p of the common order (`pipeline.shuffled_indices`).
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Source
from ssanet_jax.data.pipeline import num_steps, read_options, shuffled_indices, train_batches
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UserError
from ssanet_jax.models.outputs import PartFeatures
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.runs.files import CONFIG_FILE, write_whole
from ssanet_jax.training.step import TrainState, ranks_proposals, stage_losses

_SYNC_BATCHES = 50  # what a killed process loses at most
_DESCRIBE = ('backbone', 'proposals', 'scale_mining')  # groups whose weights a features depends on
_CARRIED = ('label', 'index', 'skipped')  # of a batch, besides its images


class _Row(NamedTuple):
    """How the features of one image lies in the file."""

    dtype: np.dtype  # one field for each array of the features, then those of _CARRIED
    structure: jax.tree_util.PyTreeDef  # of the features

    def pack(self, features: PartFeatures, batch: dict[str, np.ndarray]) -> bytes:
        """The rows of a batch."""
        rows = np.empty(len(batch['label']), self.dtype)
        arrays = [*jax.tree.leaves(features), *(batch[name] for name in _CARRIED)]
        for name, array in zip(self.dtype.names, arrays, strict=True):
            rows[name] = array
        return rows.tobytes()

    def unpack(self, row: np.void) -> dict[str, Any]:
        """One row as an element of a batch."""
        arrays = [np.array(row[name]) for name in self.dtype.names]
        count = self.structure.num_leaves
        return {
            'features': jax.tree.unflatten(self.structure, arrays[:count]),
            **dict(zip(_CARRIED, arrays[count:], strict=True)),
        }


def cached_batches(
    config: ConfigDict,
    index: int,
    active: Collection[str],
    model: SSANet,
    state: TrainState,
    source: Source,
    workdir: Path,
    mesh: Mesh,
    console: Console,
) -> Iterator[dict[str, Any]]:
    """The batches of a stage from `state.step` on, as `train_batches` gives them, with descriptions for images.

    Describes the views first, or what an earlier start has left to do of them.

    Args:
      config, index: the stage; its `cache` is V.
      active: groups trained by the end of the stage.
      model: gives the structure.
      state: its parameters describe.
      source: the training images.
      workdir, mesh, console: of the run.

    Returns:
      An iterator of `{'features': PartFeatures, 'label', 'index', 'skipped': int32 [b]}` on the host.

    Raises:
      UserError: the disk has no room for the descriptions, or the images cannot be read.
    """
    row, data = config.stages[index], config.data
    seed, process = config.seed + index, processes.current()
    training = ranks_proposals(stage_losses(active, row.train, config.loss.weights))
    describe = make_extract_features(model, active, training, mesh)
    network = state.params, state.stats
    layout = _layout(
        jax.eval_shape(describe, *network, jax.ShapeDtypeStruct((1, *(data.image_size,) * 2, 3), np.uint8))
    )

    directory = folder(workdir, row.name)
    batch_bytes = data.batch_size // process.count * layout.dtype.itemsize
    steps = num_steps(row.cache, len(source), data.batch_size)
    file = _File(directory, process.index, _made_for(workdir, process.count, row, layout, state))
    if processes.is_primary_process():
        _drop_others(directory, process.count)
    # The processes describe in step; what one of them has not, all do again.
    done = processes.gather([file.written // batch_bytes])[0]
    views = train_batches(source, data, seed=seed, epochs=row.cache, start=done * data.batch_size, process=process)
    if done < steps:
        needed = steps * batch_bytes * process.count
        _check_room(directory, needed * (steps - done) // steps, index)
        console.print(
            f'{row.name}: describing {row.cache} x {len(source)} images once, {needed / 1e9:.1f} GB',
            highlight=False,
            soft_wrap=True,
        )
    with file.writing(done * batch_bytes):
        batches = sharding.prefetch(views, mesh, ('image',))
        described = _described(describe, network, batches)
        work = track(
            sharding.look_ahead(described, 1),  # the devices describe while the host writes
            row.name,
            total=steps - done,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        for number, (batch, features) in enumerate(work, done + 1):
            file.append(layout.pack(jax.tree.map(_local, features), batch))
            if number % _SYNC_BATCHES == 0 or number == steps:
                file.sync()
    processes.barrier(f'described for {row.name}')

    files = [np.memmap(_path(directory, number), layout.dtype, 'r') for number in range(process.count)]
    places = _places(len(source), seed, row.cache)

    def read(place: int) -> dict[str, Any]:
        kept = places(place)
        return layout.unpack(files[kept % process.count][kept // process.count])

    total = num_steps(row.epochs, len(source), data.batch_size) * data.batch_size
    start = int(state.step) * data.batch_size
    stream = grain.MapDataset.range(total).slice(slice(start + process.index, total, process.count)).map(read)
    share = data.batch_size // process.count
    return iter(stream.to_iter_dataset(read_options(data, share)).batch(share))


def folder(workdir: Path, stage: str) -> Path:
    """Where a stage keeps its descriptions while it trains."""
    return workdir / stage / 'features'


def remove(workdir: Path, stage: str) -> None:
    """Deletes the descriptions of a stage that is over, if it kept any."""
    if processes.is_primary_process():
        shutil.rmtree(folder(workdir, stage), ignore_errors=True)


def make_extract_features(
    model: SSANet, active: Collection[str], training: bool, mesh: Mesh
) -> Callable[..., PartFeatures]:
    """A compiled `(params, stats, images) -> PartFeatures`, with BatchNorm at its running statistics.

    Args:
      model: gives the structure.
      active: groups trained by the end of the stage.
      training: describe the M proposals too, not the K parts alone.
      mesh: the devices.
    """
    model.eval()
    graph, _, _ = split_model(model)

    @jax.jit
    def describe(params, stats, images):
        features = merge_model(graph, params, stats).extract_features(
            sharding.split_batch(images, mesh),
            active=active,
            training=training,
            map_candidates=partial(sharding.candidate_map, mesh=mesh),
        )
        if features.regions is not None:
            # The maps of the whole image are large; the head that reads them is refused (`check_settings`).
            features = features._replace(regions=features.regions._replace(levels=()))
        return sharding.split_batch(features, mesh)

    return describe


def _described(
    describe: Callable[..., PartFeatures],
    network: tuple[Any, Any],
    batches: Iterable[tuple[dict[str, Any], dict[str, Any]]],
) -> Iterator[tuple[dict[str, Any], PartFeatures]]:
    """Each batch with its descriptions, on which the devices are still at work."""
    for number, (batch, on_device) in enumerate(batches):
        if not number:
            processes.compile_together(describe, *network, on_device['image'])
        yield batch, describe(*network, on_device['image'])


def _layout(example: PartFeatures) -> _Row:
    """The row of a features, given as shapes `[1, ...]`."""
    leaves, structure = jax.tree.flatten(example)
    fields = [(f'array{number}', leaf.dtype, leaf.shape[1:]) for number, leaf in enumerate(leaves)]
    return _Row(np.dtype(fields + [(name, np.int32) for name in _CARRIED]), structure)


def _local(array: jax.Array) -> np.ndarray:
    """What an array says of the images of this process, in their order in its batch."""
    pieces = {piece.index[0].start or 0: piece.data for piece in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def _places(images: int, seed: int, views: int) -> Callable[[int], int]:
    """A function from a place in the common order to the one in the first `views` passes with its features."""
    order = shuffled_indices(images, seed)
    first = np.empty((views, images), np.int64)  # place of each image in each of these passes
    for view in range(views):
        passed = range(view * images, (view + 1) * images)
        first[view, [order[place] for place in passed]] = passed
    return lambda place: int(first[place // images % views, order[place]])


def _made_for(workdir: Path, count: int, row: ConfigDict, layout: _Row, state: TrainState) -> dict[str, Any]:
    """What descriptions depend on: those made for something else are worth nothing.

    The groups that train are not among it: they move, and a resumed stage begins with others than it described with.
    """
    digest = hashlib.sha256((workdir / CONFIG_FILE).read_bytes())
    digest.update(str(layout.dtype.descr).encode())
    frozen = {group: params for group, params in state.params.items() if group in _DESCRIBE and group not in row.train}
    digest.update(np.array(jax.tree.leaves(_fingerprints((frozen, state.stats)))))
    return {'network': digest.hexdigest(), 'processes': count}


@jax.jit
def _fingerprints(tree: Any) -> Any:
    """A number of 32 bits for each array; computed where they are, for DSM may be spread over many processes."""

    def fingerprint(x):
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).ravel()
        return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1))

    return jax.tree.map(fingerprint, tree)


def _path(directory: Path, process: int) -> Path:
    return directory / f'features-{process}'


def _note(directory: Path, process: int) -> Path:
    return directory / f'{process}.json'


def _check_room(directory: Path, needed: int, index: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f'the features that config.stages[{index}].cache keeps take {needed / 1e9:.1f} GB, and {directory} has '
            f'{free / 1e9:.1f} GB left: lower cache, set it to 0, or give a --workdir on a larger disk'
        )


def _drop_others(directory: Path, count: int) -> None:
    """Deletes what processes wrote that are no longer among the `count` of now."""
    kept = {path.name for number in range(count) for path in (_path(directory, number), _note(directory, number))}
    for path in directory.iterdir():
        if path.name not in kept and not path.name.endswith('.partial'):  # another process may be writing that
            path.unlink()


class _File:
    """The descriptions that one process wrote, and a note of how much of them has reached the disk."""

    def __init__(self, directory: Path, process: int, made_for: dict[str, Any]):
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._note, self._made_for = _path(directory, process), _note(directory, process), made_for
        self.written = self._noted()  # bytes
        if not self.written:
            self._path.unlink(missing_ok=True)  # the room that it takes is needed

    def _noted(self) -> int:
        try:
            note = json.loads(self._note.read_text())
            usable = note['made_for'] == self._made_for and self._path.stat().st_size >= note['bytes']
            return int(note['bytes']) if usable else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    @contextlib.contextmanager
    def writing(self, start: int) -> Iterator[None]:
        """Opens the file to go on at byte `start`; what lies behind was not finished."""
        with self._named(), self._path.open('ab') as self._file:
            self._file.truncate(start)
        with self._path.open('ab') as self._file:
            yield

    def append(self, rows: bytes) -> None:
        """Writes rows at the end."""
        with self._named():
            self._file.write(rows)

    def sync(self) -> None:
        """Notes all rows as written, when they are on the disk."""
        with self._named():
            self._file.flush()
            os.fsync(self._file.fileno())
            write_whole(self._note, json.dumps({'made_for': self._made_for, 'bytes': self._file.tell()}))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f'cannot write {self._path} ({error.strerror}): make room, or lower cache') from error
