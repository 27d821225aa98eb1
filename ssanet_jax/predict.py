"""Predicts the class of images with a trained run, and draws their parts.

    python -m ssanet_jax.predict --workdir=runs/cub --out=predictions IMAGE_OR_FOLDER...
    python -m ssanet_jax.predict --model=birds.onnx --out=predictions IMAGE_OR_FOLDER...    # or birds.stablehlo
    python -m ssanet_jax.predict --workdir=runs/cub --format=csv,coco --pictures=none IMAGE_OR_FOLDER...

Writes `predictions.jsonl`, one line per image (class, probabilities, boxes of the parts in pixels of the image, the
scale and orientation chosen for each), and a picture of the parts of each image, `folder_photo.jpg.png` for
`folder/photo.jpg`; `--pictures=explain` draws explanations instead. Files that are left out are in `left_out.csv`, with
the reason. `--format` selects other files. Until all images are done, results are in `predictions.partial`: the same
command continues after a kill.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ssanet_jax import __version__, cli
from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.data.image_inputs import find_images
from ssanet_jax.data.left_out import LeftOut, left_out_line
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.image_predictor import ImagePredictor
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.image_progress import ImageProgress
from ssanet_jax.loading import BACKENDS, load
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole
from ssanet_jax.prediction_files import json_lines
from ssanet_jax.prediction_files.formats import check_files, parse_formats, write_formats
from ssanet_jax.prediction_files.journal import open_journal
from ssanet_jax.prediction_files.left_out_file import LEFT_OUT_FILE, write_left_out
from ssanet_jax.prediction_files.picture_names import PictureNames
from ssanet_jax.prediction_files.recording import record_predictions
from ssanet_jax.printable import printable

if TYPE_CHECKING:
    from ssanet_jax.prediction_files.explained import Explainer

PICTURES = ('none', 'parts', 'explain')
BATCH_SIZE = 8

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.')
_MODEL = define_path(
    'model',
    None,
    'File of an exported run, or hub:OWNER/NAME[@REVISION], in place of --workdir; an ONNX file needs no JAX.',
)
_BACKEND = flags.DEFINE_enum(
    'backend', None, BACKENDS, 'What runs a network of --model=hub:OWNER/NAME; the default is onnxruntime.'
)
_OUT = define_path('out', 'predictions', 'Folder to write to.')
_TOP = flags.DEFINE_integer('top', 5, 'Number of classes to list for each image.', lower_bound=1)
_FORMAT = flags.DEFINE_multi_string(
    'format',
    ['jsonl'],
    'Files to write, separated by commas: jsonl (JSON lines), csv (a table), coco (the parts as detections), camtrap '
    '(observations of Camtrap DP).',
)
_PICTURES = flags.DEFINE_enum(
    'pictures',
    'parts',
    PICTURES,
    'Picture to draw of each image: its parts, or an explanation with similar training photos.',
)
_DATA_DIR = define_path(
    'data_dir', None, 'Folder of the training photos for --pictures=explain, if it is no longer that of the training.'
)
_DETAILS = flags.DEFINE_bool('details', False, 'Also write scale and orientation of the parts into pictures.')


def main(given: list[str]) -> None:
    """Predicts every image; an unreadable one is reported and skipped, and the exit code is then 2."""
    if (_WORKDIR.value is None) == (_MODEL.value is None):
        both = 'both --workdir and --model are given' if _MODEL.value else '--workdir or --model is missing'
        raise UserError(f'{both}: give the folder of a trained run, or the file of an exported one; see --help')
    if _BACKEND.value and not _MODEL.value:
        raise UserError(f'--backend={_BACKEND.value} is for --model=hub:OWNER/NAME: a run in --workdir needs JAX')
    if _MODEL.value and _PICTURES.value == 'explain':
        raise UserError('--pictures=explain needs --workdir: the file of an exported run has no training photos')
    if _DATA_DIR.value and _PICTURES.value != 'explain':
        raise UserError('--data_dir is for --pictures=explain, which shows training photos: leave it out, or add that')
    out, formats = _OUT.value, parse_formats(_FORMAT.value)
    arguments = [user_path(argument, 'image') for argument in given]
    for argument in arguments:
        if argument.is_dir() and argument.resolve() == out.resolve():
            raise UserError(f'--out={out} is the folder of the images, which must not mix: give another --out')
    found = find_images(arguments, exclude=out)  # files in the output folder were drawn by an earlier run
    files, left_out = [str(file) for file in found.files], found.left_out
    del found  # strings take a fraction of the memory of paths
    check_files(out, [*(chosen.file for chosen in formats), LEFT_OUT_FILE])
    predictor = _load()
    explainer = _explainer(predictor)
    batch_size = min(BATCH_SIZE, len(files))  # a single image is computed by all devices
    settings = {
        'the version': __version__,
        'the network': predictor.digest(),
        '--top': _TOP.value,
        '--pictures': _PICTURES.value,
        '--details': _DETAILS.value,
        'the batch size': batch_size,
    }
    with open_journal(out, settings, files) as journal:
        if journal.message:
            print(printable(journal.message), file=sys.stderr)
        with ImageProgress(PlainConsole(stderr=True), len(files), journal.done, task='predicting') as progress:
            draw = _drawing(explainer, out, files)
            make_line = lambda prediction: json_lines.to_line(prediction, _TOP.value)
            for records in record_predictions(predictor, files[journal.done :], batch_size, make_line, draw):
                journal.add(records)
                progress.advance(len(records))
        write_formats(
            out, formats, journal, f'ssanet_jax {__version__} ({(_MODEL.value or _WORKDIR.value).resolve().name})'
        )
        unreadable = lambda: (record for record in journal if record.line is None)
        if explainer:
            explainer.write_contact_sheets(out, journal)
        write_left_out(out, itertools.chain(left_out, (LeftOut(one.file, one.reason) for one in unreadable())))
        first = [one.reason for one in itertools.islice(unreadable(), 3)]
        num_unreadable = sum(1 for _ in unreadable()) if first else 0
    if left_out:
        print(printable(left_out_line(left_out, len(files))), file=sys.stderr)
    if not predictor.detects_novelty:
        print(
            'the run has no held-out images, so that images of none of its classes are not recognized as such: train '
            'with config.data.validation=0.1 to hold some out',
            file=sys.stderr,
        )
    count = len(files) - num_unreadable
    print(printable(f'{count} image{"" if count == 1 else "s"} recognized: see {out}'))
    if num_unreadable:
        raise UserError(
            f'{num_unreadable} of {len(files)} images cannot be read and were left out ({out / LEFT_OUT_FILE}): '
            f'{"; ".join(first)}'
        )


def _load() -> ImagePredictor:
    """The network of --model or --workdir; says so if its training is not over."""
    if _MODEL.value is not None:
        return load(_MODEL.value, backend=_BACKEND.value) if _BACKEND.value else load_model(_MODEL.value)
    from ssanet_jax.predictor import Predictor  # imports JAX, as the next lines do
    from ssanet_jax.runs.finished_stages import unfinished_line
    from ssanet_jax.runs.run import load_run

    predictor = Predictor.from_run(load_run(_WORKDIR.value, data_dir=_DATA_DIR.value))
    if line := unfinished_line(_WORKDIR.value):
        print(printable(line), file=sys.stderr)
    return predictor


def _explainer(predictor: ImagePredictor) -> 'Explainer | None':
    """What draws the pictures of --pictures=explain; says so if it has no training photos."""
    if _PICTURES.value != 'explain':
        return None
    from ssanet_jax.prediction_files.explained import Explainer  # imports JAX
    from ssanet_jax.predictor import Predictor

    assert isinstance(predictor, Predictor)  # --model is refused
    explainer = Explainer(predictor, details=_DETAILS.value)
    if explainer.problem and _DATA_DIR.value:
        raise UserError(explainer.problem)
    if explainer.problem:
        print(printable(f'explained without training photos: {explainer.problem}'), file=sys.stderr)
    return explainer


def _drawing(explainer: 'Explainer | None', out: Path, files: Sequence[str]) -> Callable[[Prediction], None]:
    """A function that draws the picture of a prediction in the folder `out`, if pictures are to be drawn."""
    if _PICTURES.value == 'none':
        return lambda prediction: None
    if explainer:
        name = PictureNames(files, '.jpg')
        return lambda prediction: explainer.save(prediction, out / name(str(prediction.path)))
    name = PictureNames(files)
    details = {'details': True} if _DETAILS.value else {}
    return lambda prediction: prediction.save(out / name(str(prediction.path)), **details)


if __name__ == '__main__':
    cli.run(main, accepts_arguments=True)
