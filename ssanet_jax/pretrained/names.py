"""Where each tensor of a torch checkpoint goes in the NNX backbone: one table a family.

A row reads `pattern of torch names -> path in the module, transform of the array`. `\\1` in the
path is what the first group matched. Nothing is loaded unless everything fits.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from ssanet_jax.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
Row = tuple[str, str | None, Transform]


def keep(array: np.ndarray) -> np.ndarray:
    """The array as it is (BatchNorm vectors)."""
    return array


def conv(array: np.ndarray) -> np.ndarray:
    """[O, I, k, k] -> [k, k, I, O]."""
    return array.transpose(2, 3, 1, 0)


def pointwise(array: np.ndarray) -> np.ndarray:
    """[O, I, 1, 1] -> [I, O]."""
    if array.shape[2:] != (1, 1):
        raise ValueError(f'not a 1x1 convolution: {array.shape}')
    return array[:, :, 0, 0].T


def depthwise(array: np.ndarray) -> np.ndarray:
    """[C, 1, k, k] -> [k, k, C]."""
    if array.shape[1] != 1:
        raise ValueError(f'not a depthwise convolution: {array.shape}')
    return array[:, 0].transpose(1, 2, 0)


def _norm(torch_name: str, path: str) -> tuple[Row, ...]:
    """The rows of one BatchNorm."""
    pairs = (('weight', 'scale'), ('bias', 'bias'), ('running_mean', 'mean'), ('running_var', 'var'))
    return tuple((rf'{torch_name}\.{theirs}', f'{path}.{ours}', keep) for theirs, ours in pairs)


# A path of None: known, and not needed here.
_IGNORED: tuple[Row, ...] = ((r'(.*\.)?num_batches_tracked', None, keep), (r'(_fc|fc|classifier)\..*', None, keep))

EFFICIENTNET_LITE: tuple[Row, ...] = _IGNORED + (
    (r'_conv_stem\.weight', r'stem.kernel', conv),
    *_norm(r'_bn0', r'stem_norm'),
    (r'_blocks\.(\d+)\._expand_conv\.weight', r'blocks.\1.expand.kernel', pointwise),
    *_norm(r'_blocks\.(\d+)\._bn0', r'blocks.\1.expand_norm'),
    (r'_blocks\.(\d+)\._depthwise_conv\.weight', r'blocks.\1.depthwise.kernel', depthwise),
    *_norm(r'_blocks\.(\d+)\._bn1', r'blocks.\1.depthwise_norm'),
    (r'_blocks\.(\d+)\._project_conv\.weight', r'blocks.\1.project.kernel', pointwise),
    *_norm(r'_blocks\.(\d+)\._bn2', r'blocks.\1.project_norm'),
    (r'_conv_head\.weight', r'head.kernel', pointwise),
    *_norm(r'_bn1', r'head_norm'),
)


def _resnet(kernels: Mapping[int, Transform]) -> tuple[Row, ...]:
    """torchvision's ResNet; `kernels`: number of the convolution in a block -> transform."""
    rows = _IGNORED + ((r'conv1\.weight', r'stem.kernel', conv), *_norm(r'bn1', r'stem_norm'))
    for stage in range(4):
        theirs, ours = rf'layer{stage + 1}\.(\d+)', rf'stages.{stage}.\1'
        for number, transform in kernels.items():
            rows += ((rf'{theirs}\.conv{number}\.weight', rf'{ours}.conv{number}.kernel', transform),)
            rows += _norm(rf'{theirs}\.bn{number}', rf'{ours}.norm{number}')
        rows += ((rf'{theirs}\.downsample\.0\.weight', rf'{ours}.shortcut.kernel', pointwise),)
        rows += _norm(rf'{theirs}\.downsample\.1', rf'{ours}.shortcut_norm')
    return rows


RESNET_BASIC = _resnet({1: conv, 2: conv})
RESNET_BOTTLENECK = _resnet({1: pointwise, 2: conv, 3: pointwise})

# Name of the backbone -> its table. A backbone that is not here has no public weights.
FAMILIES: dict[str, tuple[Row, ...]] = {
    'resnet18': RESNET_BASIC,
    'resnet34': RESNET_BASIC,
    'resnet50': RESNET_BOTTLENECK,
    'resnet101': RESNET_BOTTLENECK,
    'efficientnet_lite0': EFFICIENTNET_LITE,
}


def map_names(
    tensors: Mapping[str, np.ndarray],
    rows: tuple[Row, ...],
    wanted: Mapping[str, tuple[int, ...]],
    source: str,
) -> dict[str, np.ndarray]:
    """Renames and reshapes a checkpoint to what a module wants, or says everything that is wrong.

    Args:
      tensors: torch name -> array.
      rows: the family's table, first match wins.
      wanted: dotted NNX path -> shape, for every parameter and statistic of the module.
      source: what to call the checkpoint in the error.

    Returns:
      Dotted NNX path -> float32 array, exactly the keys of `wanted`.

    Raises:
      UserError: names are missing, unexpected or wrongly shaped; all of them in one line.
    """
    found, unexpected, misshapen = {}, [], []
    for name, array in tensors.items():
        row = next(((m, path, to) for pattern, path, to in rows if (m := re.fullmatch(pattern, name))), None)
        if row is None:
            unexpected.append(name)
            continue
        match, template, transform = row
        if template is None:
            continue
        path = match.expand(template)
        if path not in wanted:
            unexpected.append(name)
            continue
        try:
            value = transform(array)
        except (ValueError, IndexError):
            value = array
        if value.shape != tuple(wanted[path]):
            misshapen.append(f'{name} {tuple(array.shape)} for {path} {tuple(wanted[path])}')
        found[path] = value
    missing = [path for path in wanted if path not in found]
    problems = [
        _listed(kind, names)
        for kind, names in (('missing', missing), ('unexpected', unexpected), ('wrongly shaped', misshapen))
        if names
    ]
    if problems:
        raise UserError(
            f'{source} does not fit the backbone: {"; ".join(problems)}; choose the backbone it was made for'
        )
    return {path: np.asarray(value, np.float32) for path, value in found.items()}


def _listed(kind: str, names: list[str], shown: int = 4) -> str:
    more = ', ...' if len(names) > shown else ''
    return f'{len(names)} {kind} ({", ".join(names[:shown])}{more})'
