"""A trained network in each way to share features between its regions: what it answers, and how long it takes.

The ways of `models/sharing.py` hold no weights, so that a network trained with one can answer with any other.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.sharding import device_kind
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import evaluate, head_logits
from ssanet_jax.experiments.measurements import check_proposals, network, tracked
from ssanet_jax.experiments.timing import take_turns
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.sharing import REGION, Sharing
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.runs.run import Run, build_model

GLOBAL_POOLING = 'global pooling'  # the backbone with its image classifier, what the ways are held against
WIDTH_95 = 1.96  # standard errors to either side of a 95 % interval
Predict = Callable[[jax.Array], Outputs]


class Way(NamedTuple):
    """A way to get the features of regions."""

    sharing: Sharing
    dilated: bool = False

    def __str__(self) -> str:
        return f'{self.sharing}, dilated' if self.dilated else self.sharing


def own_way(run: Run) -> Way:
    """The way that a run was trained with."""
    return Way(run.model.sharing, run.model.every > 1)


def ways_of(run: Run) -> list[Way]:
    """The ways to try: all three, and where the run dilates its maps, 'image' and 'part' without that too.

    What was trained on maps of the usual stride is not dilated: that would be another network, slower and not asked
    for.
    """
    dilations = (True, False) if own_way(run).dilated else (False,)
    return [*(Way(sharing, dilated) for sharing in ('image', 'part') for dilated in dilations), Way('none')]


def with_way(run: Run, way: Way) -> Run:
    """A run with the same weights in a network that shares features in another way.

    Crops of 'none' get the size that makes a 7 x 7 map, those of 'part' have the run's `config.model.crop_size`.

    Raises:
      UserError: the network cannot work that way.
    """
    config = run.config.copy_and_resolve_references()
    config.model.sharing = way.sharing
    config.model.output_stride = run.model.backbone.stride if way.dilated else 0
    if way.sharing == 'none':
        config.model.crop_size = REGION * run.model.anchor_stride  # the stride without dilation
    shapes = nnx.eval_shape(lambda: build_model(config, len(run.class_names), pretrained=False))
    model = merge_model(split_model(shapes)[0], *split_model(run.model)[1:])
    return dataclasses.replace(run, config=config, model=model)


def measure_sharing(run: Run, dataset: Dataset, rounds: int = 5, batch_size: int | None = None) -> dict[str, Any]:
    """Accuracy on the test set and time of prediction for each way to share features.

    Args:
      run, dataset: the network and its data.
      rounds: of timing, in which all ways take turns; the median counts.
      batch_size: images a call, besides the single one that is timed too; by default the run's evaluation batch.

    Returns:
      `'ways'`, a row each: `way`, `sharing`, `dilated`, `crop_size` (of 'part' and 'none'), `trained` (whether the
      run was trained so), and either `problem`, why the network cannot work so here, or `accuracy`, `heads` (of each
      head), `won` and `lost` (images that it has right and the trained way wrong, and the reverse), `difference`
      (percentage points of accuracy against the trained way), `half_width` (of its 95 % interval, see
      `paired_difference`) and `milliseconds` (an image, by images a call: 1 and `batch_size`).
      `'global_pooling'`, `accuracy` and `milliseconds` of the backbone with its image classifier, not dilated;
      the accuracy is None if that was not trained. `'examples'`, `'unreadable'` (positions of images; they count
      as wrong) and `'device'`.

    Raises:
      UserError: the network describes no regions, or its own way has no room in memory.
    """
    check_proposals(run)
    config = run.config.data.copy_and_resolve_references()
    config.eval_batch_size = size = batch_size or config.eval_batch_size
    rows = [_row(run, way) for way in ways_of(run)]
    bare = with_way(run, Way('image'))
    competitors = {GLOBAL_POOLING: dataclasses.replace(bare, active=frozenset({'backbone', 'image_classifier'}))}
    for row in rows:
        try:
            competitors[row['way']] = with_way(run, Way(row['sharing'], row['dilated']))
        except UserError as error:
            row['problem'] = str(error).removeprefix('config.model: ')

    milliseconds: dict[str, dict[str, float]] = {name: {} for name in competitors}
    for batch in sorted({1, size}):
        mesh = sharding.make_mesh(images=batch)
        predict = {name: network(competitor, mesh) for name, competitor in competitors.items()}
        images = _some_images(batch, config.image_size, mesh)
        for row in rows:
            if 'problem' not in row and not _has_room(predict[row['way']], images):
                row['problem'] = f'{batch} images at once do not fit into memory: lower --batch'
                del competitors[row['way']], predict[row['way']]
                if row['trained']:  # all others are held against it
                    raise UserError(row['problem'])
        if batch == size:
            batches = tracked('ways to share', eval_batches(dataset.test, config), len(dataset.test), size)
            found = evaluate(_make_count(predict, str(own_way(run))), {}, {}, batches, mesh)
        for name, seconds in _seconds(predict, images, rounds).items():
            milliseconds[name][str(batch)] = 1e3 * seconds / batch

    counts = lambda name: {what: share for (of, what), share in found['heads'].items() if of == name}
    for row in rows:
        if 'problem' not in row:
            heads = counts(row['way'])
            won, lost = (round(heads.pop(what) * found['examples']) for what in ('won', 'lost'))
            difference, half_width = paired_difference(won, lost, found['examples'])
            row |= {'accuracy': heads.pop('sum'), 'heads': heads, 'won': won, 'lost': lost}
            row |= {'difference': difference, 'half_width': half_width, 'milliseconds': milliseconds[row['way']]}
    return {
        'ways': rows,
        'global_pooling': {
            'accuracy': counts(GLOBAL_POOLING)['sum'] if 'image_classifier' in run.active else None,
            'milliseconds': milliseconds[GLOBAL_POOLING],
        },
        'examples': found['examples'],
        'unreadable': found['unreadable'],
        'device': device_kind(),
    }


def paired_difference(won: int, lost: int, examples: int) -> tuple[float, float]:
    """How much more often one way is right than another on the same images.

    Args:
      won, lost: images that only the one, or only the other, has right.
      examples: all images, n.

    Returns:
      The difference in percentage points, and half the width of its 95 % interval over images drawn like these:
      1.96 sqrt(won + lost - (won - lost)^2 / n) / n. Too narrow where won + lost is below ten or so; and it says
      nothing of other runs.
    """
    variance = won + lost - (won - lost) ** 2 / examples
    return 100 * (won - lost) / examples, 100 * WIDTH_95 * math.sqrt(variance) / examples


def _row(run: Run, way: Way) -> dict[str, Any]:
    crops = {'image': None, 'part': run.model.crop_size, 'none': REGION * run.model.anchor_stride}
    trained = way == own_way(run)
    return {'way': str(way), **way._asdict(), 'crop_size': crops[way.sharing], 'trained': trained}


def _make_count(predict: Mapping[str, Predict], own: str) -> Callable[..., dict[Any, jax.Array]]:
    """For `evaluate`: right answers by (competitor, head), and those that `own` has not, or has alone."""

    def count(params, stats, batch):
        del params, stats  # each competitor has its own
        readable = batch['mask'] & (batch['skipped'] < 0)
        is_right = lambda logits: (logits.argmax(-1) == batch['label']) & readable
        right = {
            (name, head): is_right(logits)
            for name, competitor in predict.items()
            for head, logits in head_logits(competitor(batch['image'])).items()
        }
        trained = right[own, 'sum']
        for name in predict:
            answer = right[name, 'sum']
            right |= {(name, 'won'): answer & ~trained, (name, 'lost'): trained & ~answer}
        return {key: jnp.sum(value) for key, value in {**right, 'sum': trained, 'examples': batch['mask']}.items()}

    return count


def _some_images(count: int, side: int, mesh: Mesh) -> jax.Array:
    """Images on the devices; for how long they take it makes no difference what they show."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return sharding.shard_batch({'image': images}, mesh)['image']


def _has_room(predict: Predict, images: jax.Array) -> bool:
    """Whether a network can be called on so many images."""
    try:
        jax.block_until_ready(predict(images).logits)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return False
    return True


def _seconds(predict: Mapping[str, Predict], images: jax.Array, rounds: int) -> dict[str, float]:
    """Seconds a call."""
    calls = {
        name: lambda competitor=competitor: jax.block_until_ready(competitor(images).logits)
        for name, competitor in predict.items()
    }
    return take_turns(calls, rounds)
