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


def read_model_file(path: Path) -> OnnxFile | StableHloFile:
    """Reads and checks the file of an exported network. It may be anybody's: no other file is read, and no code run.

    Raises:
      UserError: it cannot be read, is damaged, or is another file than `ssanet export` writes.
    """
    data = _read(path)
    if is_stablehlo_file(data):
        return read_content(data, str(path))
    return OnnxFile(data, check_content(data, str(path)))


def load_model(path: str | os.PathLike[str]) -> ArtifactPredictor:
    """Loads an exported network, ready to predict.

    Args:
      path: a file that `ssanet export` wrote, or 'hub:OWNER/NAME' or 'hub:OWNER/NAME@REVISION' for the ONNX file that
        `ssanet push` uploaded.

    Raises:
      UserError: the file cannot be read, or is another; or what runs it is not installed.
    """
    name = os.fspath(path)
    if name.startswith(HUB):
        data = _read(download_model_file(name.removeprefix(HUB), MODEL_FILE, _MAX_BYTES))
        return OnnxPredictor(OnnxFile(data, check_content(data, f'{name}/{MODEL_FILE}')), name)
    given = user_path(path, 'model')
    file = read_model_file(given)
    if isinstance(file, OnnxFile):
        return OnnxPredictor(file, str(given))
    from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor  # imports JAX

    return StableHloPredictor(file, str(given))


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f'cannot read {path} ({error.strerror}): check the path') from error
