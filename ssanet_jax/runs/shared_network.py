"""A trained network as two files for others: its tensors in `model.safetensors`, all the rest in `config.json`.

`config.json` has the fields of a run's (`runs/files.py`), without paths, and the SHA-256 of the files beside it. The
features of the training images, `STAGE/index.npz`, may be there, too. Reading the files runs no code from them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save

from ssanet_jax import __version__
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.checksums import file_sha256
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.pretrained.hub import CONFIG_FILE, WEIGHTS_FILE, download_model_file
from ssanet_jax.pretrained.load import read_safetensors
from ssanet_jax.runs.feature_index import INDEX_FILE
from ssanet_jax.runs.files import read_json, read_run
from ssanet_jax.runs.held_out import HeldOutPredictions, held_out_arrays, parse_held_out
from ssanet_jax.runs.json_checksums import add_checksum
from ssanet_jax.runs.locations import without_locations
from ssanet_jax.runs.run import Run, build_model

FORMAT = 1  # of `config.json`; readers refuse a higher one
_HELD_OUT = 'held_out.'
_IN_CONFIG = ('temperature', 'split')  # fields of the held-out predictions that are no arrays
_MAX_CONFIG, _MAX_WEIGHTS, _MAX_INDEX = 8 << 20, 8 << 30, 8 << 30  # bytes
_CURE = 'get it again, or choose another repository'


def encode_tensors(run: Run) -> bytes:
    """The content of `model.safetensors`: parameters, BatchNorm statistics, and held-out predictions if there are any.

    Tensors have the paths in the network for names, such as 'backbone.stem.kernel'.
    """
    _, params, stats = split_model(run.model)
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in [*_named(params), *_named(stats)]}
    if run.held_out is not None:
        arrays = held_out_arrays(run.held_out)
        tensors |= {f'{_HELD_OUT}{name}': array for name, array in arrays.items() if name not in _IN_CONFIG}
    return save(tensors, metadata={'format': 'np'})


def encode_config(run: Run, folder: Path, files: Iterable[str]) -> bytes:
    """The content of `config.json`.

    Args:
      run: the run.
      folder: its folder.
      files: the files in the folder whose checksums it holds.

    Raises:
      OSError: one of them cannot be read.
    """
    content: dict[str, Any] = {
        'config': json.loads(without_locations(run.config).to_json_best_effort()),
        'class_names': list(run.class_names),
        'images': '',
        'library': f'ssanet_jax {__version__}',
        'format': FORMAT,
        'held_out': None,
        'sha256': {name: file_sha256(folder / name) for name in files},
    }
    if run.held_out is not None:
        content['held_out'] = {'temperature': run.held_out.temperature, 'split': run.held_out.split}
    return (json.dumps(add_checksum(content), indent=2) + '\n').encode()


def load_from_hub(repository: str) -> Run:
    """Downloads a network that `ssanet push` uploaded, or finds it in the hub's cache.

    Args:
      repository: 'OWNER/NAME', or 'OWNER/NAME@REVISION' with a branch, tag or commit.

    Raises:
      UserError: as in `pretrained.hub.download_model_file` and `read_shared_network`.
    """
    config = download_model_file(repository, CONFIG_FILE, _MAX_CONFIG)
    commit = config.parent.name  # all files are of one commit, whatever is uploaded meanwhile
    get = lambda name, size: download_model_file(f'{repository.partition("@")[0]}@{commit}', name, size)
    return read_shared_network(config.parent, get)


def read_shared_network(folder: Path, get: Callable[[str, int], Path] | None = None) -> Run:
    """Reads a network from its files. They may be anybody's.

    Args:
      folder: holds `config.json`.
      get: brings a file, given its name and largest size, and returns its path; by default it is in the folder.

    Raises:
      UserError: a file is missing, is damaged or differs from its checksum, or the tensors do not fit the
        configuration.
    """
    path = folder / CONFIG_FILE
    recorded = read_json(path, _CURE) or {}
    if recorded.get('format') != FORMAT or not isinstance(recorded.get('sha256'), dict):
        raise UserError(f'{path} is not of a network that this version of ssanet push uploads: {_CURE}')
    content = read_run(folder)

    def find(name: str, max_bytes: int) -> Path:
        found = get(name, max_bytes) if get else folder / name
        _check_file(found, recorded['sha256'].get(name))
        return found

    weights = find(WEIGHTS_FILE, _MAX_WEIGHTS)
    tensors = read_safetensors(weights)
    config = without_locations(ConfigDict(content['config']))
    stages = [ConfigDict(stage) for stage in config.stages]
    names = tuple(content['class_names'])
    try:
        model = nnx.eval_shape(lambda: build_model(config, len(names), pretrained=False))
    except (AttributeError, KeyError) as error:  # a field that every run has recorded is not there
        raise UserError(f'{path} is damaged, it lacks {str(error)[:80]}: {_CURE}') from error
    graph, *shapes = split_model(model)
    index = index_file(stages[-1].name)
    has_index = index in recorded['sha256']
    if has_index:
        find(index, _MAX_INDEX)
    return Run(
        config=config,
        class_names=names,
        model=merge_model(graph, *_fill(shapes, tensors, weights)),
        active=active_groups(stages, len(stages) - 1),
        stage=stages[-1].name,
        finished=True,
        held_out=_held_out(recorded.get('held_out'), tensors, len(names), path),
        workdir=folder if has_index else None,
    )


def index_file(stage: str) -> str:
    """The name of the file with the features of the training images."""
    return f'{stage}/{INDEX_FILE}'


def _named(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with their paths."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator='.'), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _fill(shapes: list[Any], tensors: Mapping[str, np.ndarray], path: Path) -> Any:
    """Replaces the shapes of a network by tensors."""
    wanted = dict(pair for tree in shapes for pair in _named(tree))
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HELD_OUT)}
    differ = {name for name, leaf in wanted.items() if name in found and _kind(leaf) != _kind(found[name])}
    if wrong := sorted(differ | (wanted.keys() ^ found.keys())):
        raise UserError(
            f'{path} does not fit its {CONFIG_FILE} (missing, unknown or of another shape: {", ".join(wrong[:3])}, '
            f'{len(wrong)} in all): {_CURE}'
        )
    take = lambda tree_path, _: jnp.asarray(found[jax.tree_util.keystr(tree_path, simple=True, separator='.')])
    return [jax.tree_util.tree_map_with_path(take, tree) for tree in shapes]


def _kind(array: Any) -> tuple[tuple[int, ...], str]:
    return tuple(array.shape), str(array.dtype)


def _held_out(
    recorded: Any, tensors: Mapping[str, np.ndarray], num_classes: int, path: Path
) -> HeldOutPredictions | None:
    if recorded is None:
        return None
    arrays = {name.removeprefix(_HELD_OUT): array for name, array in tensors.items() if name.startswith(_HELD_OUT)}
    try:
        arrays |= {name: np.asarray(recorded[name]) for name in _IN_CONFIG}
        return parse_held_out(arrays, num_classes)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path} and {WEIGHTS_FILE} hold no whole held-out predictions ({error}): {_CURE}') from error


def _check_file(path: Path, recorded: Any) -> None:
    """Raises `UserError` unless a file has its checksum."""
    try:
        same = file_sha256(path) == recorded
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {_CURE}') from error
    if not same:
        raise UserError(f'{path} differs from the checksum in {CONFIG_FILE}: {_CURE}')
