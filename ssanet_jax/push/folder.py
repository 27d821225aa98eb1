"""The files that are uploaded of a run."""

import shutil
from pathlib import Path
from typing import NamedTuple

from ssanet_jax.artifact.onnx_file import check_content
from ssanet_jax.errors import UserError
from ssanet_jax.export.checking import find_check_images
from ssanet_jax.export.onnx_export import export_onnx
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.predictor import Predictor
from ssanet_jax.pretrained.hub import CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE
from ssanet_jax.push.model_card import CARD_FILE, write_model_card
from ssanet_jax.runs.feature_index import INDEX_FILE
from ssanet_jax.runs.run import Run
from ssanet_jax.runs.shared_network import encode_config, encode_tensors, index_file

PICTURE_FILE = 'parts.png'  # of the work directory: parts on test images
OPTIONAL = {f'*/{INDEX_FILE}': '--index', PICTURE_FILE: '--pictures'}  # files that hold or name photographs, and flags


class Contents(NamedTuple):
    """What else is uploaded, and how it is described."""

    repository: str  # OWNER/NAME
    license_id: str = ''
    index: bool = False
    pictures: bool = False


def write_folder(run: Run, workdir: Path, out: Path, contents: Contents, images: Path | None = None) -> dict[str, int]:
    """Writes the files of a run that are uploaded: no photographs, no file names of images, no paths of this machine.

    Args:
      run: a finished run.
      workdir: its work directory.
      out: the folder to write.
      contents: what to write.
      images: images to compare the exported network with JAX on, in place of the training images.

    Returns:
      The size of each file in bytes.

    Raises:
      UserError: the network cannot be exported, a file of the run is damaged or missing, or one cannot be written.
    """
    if contents.index:
        run.read_index()  # whole, and of this network
    if contents.pictures and not (workdir / PICTURE_FILE).is_file():
        raise UserError(f'{workdir / PICTURE_FILE} is missing: leave --pictures out')
    predictor = Predictor.from_run(run)
    # The exported file names the run, whose folder may have any name.
    name = contents.repository.partition('/')[2]
    model, _ = export_onnx(predictor, name, 'float32', find_check_images(predictor, images))
    card = write_model_card(
        run, workdir, check_content(model, MODEL_FILE), contents.repository, contents.license_id, contents.pictures
    )
    try:
        write_atomically(out / WEIGHTS_FILE, encode_tensors(run))
        write_atomically(out / MODEL_FILE, model)
        files = [WEIGHTS_FILE, MODEL_FILE]
        if contents.index:
            files.append(index_file(run.stage))
            (out / files[-1]).parent.mkdir()
            shutil.copyfile(workdir / files[-1], out / files[-1])
        if contents.pictures:
            files.append(PICTURE_FILE)
            shutil.copyfile(workdir / PICTURE_FILE, out / PICTURE_FILE)
        write_atomically(out / CONFIG_FILE, encode_config(run, out, files))
        write_atomically(out / CARD_FILE, card)
        return {file: (out / file).stat().st_size for file in [CARD_FILE, CONFIG_FILE, *sorted(files)]}
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): free some space, or give another --out') from error
