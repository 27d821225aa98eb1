"""Predicts the class of images with a trained run, and draws their parts.

    python -m ssanet_jax.predict --workdir=runs/cub --out=predictions IMAGE_OR_FOLDER...

Writes `predictions.jsonl`, one line per image (class, probabilities, boxes of the parts in pixels of the image, the
scale and orientation chosen for each), and a picture of the parts of each image, `folder_photo.jpg.png` for
`folder/photo.jpg`. The lines are in `predictions.jsonl.partial` until all images are done.
"""

import contextlib
import errno
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from absl import flags
from rich.progress import Progress

from ssanet_jax import cli
from ssanet_jax.data.image_inputs import find_images
from ssanet_jax.data.left_out import left_out_line
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, printable
from ssanet_jax.predictor import load

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_OUT = define_path('out', 'predictions', 'Folder to write to.')
_TOP = flags.DEFINE_integer('top', 5, 'Number of classes to list for each image.', lower_bound=1)

BATCH_SIZE = 8
LONGEST_NAME = 200  # bytes, of a picture; file systems take 255


def main(given: list[str]) -> None:
    """Predicts every image; an unreadable one is reported and skipped, and the exit code is then 2."""
    out = _OUT.value
    arguments = [user_path(argument, 'image') for argument in given]
    for argument in arguments:
        if argument.is_dir() and argument.resolve() == out.resolve():
            raise UserError(f'--out={out} is the folder of the images, which must not mix: give another --out')
    files, left_out = find_images(arguments, exclude=out)  # files in the output folder were drawn by an earlier run
    pictures = picture_names(files)
    predictor = load(_WORKDIR.value)
    unreadable: list[str] = []
    with _predictions_file(out) as lines, Progress(console=PlainConsole(stderr=True), transient=True) as progress:
        task = progress.add_task('predicting', total=len(files))

        def skip(error: UnreadableImage) -> None:
            unreadable.append(str(error))
            progress.advance(task)

        # A single image is computed by all devices.
        for prediction in predictor.predict(files, batch_size=min(BATCH_SIZE, len(files)), on_error=skip):
            lines.write(json.dumps(json_line(prediction, _TOP.value)) + '\n')
            prediction.save(out / pictures[Path(str(prediction.path))])
            progress.advance(task)
    if left_out:
        print(printable(left_out_line(left_out, len(files))), file=sys.stderr)
    print(printable(f'{len(files) - len(unreadable)} images recognized: see {out}'))
    if unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(files)} images cannot be read and were left out: {"; ".join(unreadable[:3])}'
        )


def picture_names(files: list[Path]) -> dict[Path, str]:
    """A name for the picture of each file, such as `birds_wren.jpg.png` for `birds/wren.jpg`.

    Two files never share one: where the names would be the same, or too long, a hash of the path goes in front.
    """
    plain = {file: '_'.join(part for part in file.parts if part not in ('/', '..', '.')) for file in files}
    times = Counter(name.lower() for name in plain.values())  # some file systems ignore case
    return {
        file: f'{_unique(file, name) if times[name.lower()] > 1 or _too_long(name) else name}.png'
        for file, name in plain.items()
    }


def json_line(prediction: Prediction, top: int) -> dict[str, Any]:
    """The line of one image: boxes are `[y0, x0, y1, x1]` in pixels of the image, one per part.

    `scale` and `orientation` are empty where the network chooses none. `present`, whether each part is to be seen, is
    only there for a network that knows. `angle`, the degrees by which the image was
    turned upright, clockwise, is only there for a network that turns images. `novelty` and `unsure`, the reason not to
    rely on the class, are only there for a run with held-out images.
    """
    angle = {} if prediction.angle is None else {'angle': prediction.angle}
    present = {'present': list(prediction.present)} if prediction.present else {}
    return {
        'file': prediction.path,
        'class': prediction.label,
        'probabilities': {name: round(probability, 6) for name, probability in prediction.top(top)},
        'boxes': prediction.boxes.astype(float).round(1).tolist(),
        'scale': [round(float(scale), 4) for scale in prediction.scales],
        'orientation': list(prediction.orientations),
        **present,
        **angle,
        **prediction.trust(),
    }


def _too_long(name: str) -> bool:
    return len(os.fsencode(name)) > LONGEST_NAME


def _unique(file: Path, name: str) -> str:
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:12]
    # The end of a path says more than its beginning. A character that is cut in two is dropped.
    return f'{digest}_{os.fsencode(name)[-LONGEST_NAME:].decode(errors="ignore")}'


@contextlib.contextmanager
def _predictions_file(out: Path) -> Iterator[TextIO]:
    """A file for the lines of `predictions.jsonl`, which replaces an earlier one when all are written."""
    path = out / 'predictions.jsonl'
    partial = path.with_name(f'{path.name}.partial')
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # which would show only at the end
            raise IsADirectoryError(errno.EISDIR, f'{path.name} is a folder')
        lines = partial.open('w')
    except OSError as error:
        raise UserError(f'cannot write in {out} ({error.strerror}): give another --out') from error
    try:
        with lines:
            yield lines
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == '__main__':
    cli.run(main, accepts_arguments=True)
