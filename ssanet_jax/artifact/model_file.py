"""Loading of exported networks: the kind of a file is judged by its content."""

import os
from pathlib import Path

from ssanet_jax.artifact.artifact_predictor import ArtifactPredictor
from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.artifact.stablehlo_file import StableHloFile, is_stablehlo_file, read_content
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.filesystem.regular_files import read_regular_file
from ssanet_jax.pretrained.hub import HUB, MODEL_FILE, download_model_file

_MAX_BYTES = 1 << 31  # protobuf and flatbuffers take no more


def read_model_file(path: str | os.PathLike[str]) -> OnnxFile | StableHloFile:
    """Reads and checks the file of an exported network. It may be anybody's: no other file is read, and no code run.

    Args:
      path: a file that `ssanet export` wrote, or 'hub:OWNER/NAME' or 'hub:OWNER/NAME@REVISION' for the ONNX file that
        `ssanet push` uploaded.

    Raises:
      UserError: it cannot be read, is damaged, or is another file than `ssanet export` writes.
    """
    name = os.fspath(path)
    if name.startswith(HUB):
        data = _read(download_model_file(name.removeprefix(HUB), MODEL_FILE, _MAX_BYTES))
        return OnnxFile(data, check_content(data, f'{name}/{MODEL_FILE}'))
    file = user_path(path, 'model')
    data = _read(file)
    if is_stablehlo_file(data):
        return read_content(data, str(file))
    return OnnxFile(data, check_content(data, str(file)))


def load_model(path: str | os.PathLike[str]) -> ArtifactPredictor:
    """Loads an exported network, ready to predict.

    Args:
      path: as in `read_model_file`.

    Raises:
      UserError: the file cannot be read, or is another; or what runs it is not installed.
    """
    file = read_model_file(path)
    if isinstance(file, OnnxFile):
        return OnnxPredictor(file, os.fspath(path))
    from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor  # imports JAX

    return StableHloPredictor(file, os.fspath(path))


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check the path') from error
