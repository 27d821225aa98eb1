"""Recognises images with a trained run.

    python -m ssanet_jax.predict --workdir=runs/cub --out=predictions IMAGE_OR_FOLDER...

Writes `predictions.jsonl`, one line an image (class, probabilities, boxes of the parts in pixels
of the image, the scale and orientation chosen for each), and a picture of the parts beside it,
`folder_photo.jpg.png` for `folder/photo.jpg`. The lines stand in `predictions.jsonl.partial` until
all images are recognised.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import track

from ssanet_jax import cli
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.transforms import preprocess_for_evaluation, to_source_pixels
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import draw_parts, save_picture
from ssanet_jax.evaluation.recognition import Recogniser, Recognition
from ssanet_jax.runs.run import Run, load_run

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_OUT = flags.DEFINE_string('out', 'predictions', 'Folder to write to.')
_TOP = flags.DEFINE_integer('top', 5, 'Number of classes to list for each image.', lower_bound=1)

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
BATCH = 8
LONGEST_NAME = 200  # bytes, of a picture; file systems take 255


def main(arguments: list[str]) -> None:
    """Recognises every image; an unreadable one is named and left out, and the exit code is then 2."""
    out = Path(_OUT.value)
    files = find_images(arguments, out)
    pictures = picture_names(files)
    console = Console(stderr=True)
    run = load_run(Path(_WORKDIR.value))
    recogniser = Recogniser(run.model, run.active, min(BATCH, len(files)))  # one alone has all devices
    unreadable = []
    with _written(out) as lines:
        for first in track(range(0, len(files), BATCH), 'recognising', console=console, transient=True):
            images = list(_readable(files[first : first + BATCH], unreadable))
            inputs = [preprocess_for_evaluation(image, run.config.data) for _, image in images]
            for (file, image), picture, found in zip(images, inputs, recogniser(inputs)):
                line = describe(file, image.shape[:2], found, run, _TOP.value)
                lines.write(json.dumps(line) + '\n')
                caption = f'{line["class"]}  {line["probabilities"][line["class"]]:.2f}'
                drawn = draw_parts(picture, found.boxes, found.scales, caption, orientations=found.orientations)
                save_picture(out / pictures[file], drawn)
    print(f'{len(files) - len(unreadable)} images recognised: see {out}')
    if unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(files)} images cannot be read and were left out: {"; ".join(unreadable[:3])}'
        )


def find_images(arguments: list[str], out: Path | None = None) -> list[Path]:
    """The images named, and those in the folders named, sorted.

    Args:
      arguments: images and folders.
      out: the folder to write to. What lies in it is left out of the folders: an earlier run drew it.

    Raises:
      UserError: if a path does not exist, or there is no image at all.
    """
    files: list[Path] = []
    ours = out.resolve() if out else None
    for argument in arguments:
        path = Path(argument)
        if not path.exists():
            raise UserError(f'{path} does not exist: give images or folders of images')
        if not path.is_dir():
            files.append(path)
        elif path.resolve() == ours:
            raise UserError(f'--out={out} is the folder of the images, which must not mix: give another --out')
        else:
            # Only directly in it: with --out=. the images may well be in folders below.
            found = (p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES and p.parent.resolve() != ours)
            files += sorted(found)
    if not files:
        raise UserError(
            f'no image ({", ".join(SUFFIXES)}) in {", ".join(arguments) or "the arguments"}: give images or folders'
        )
    return files


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


def describe(file: Path, shape: tuple[int, int], found: Recognition, run: Run, top: int) -> dict:
    """One JSON line: boxes are `[y0, x0, y1, x1]` in pixels of the image, one a part.

    `scale` and `orientation` are empty where the network chooses none.
    """
    best = np.argsort(-found.probabilities)[:top]
    return {
        'file': str(file),
        'class': run.class_names[found.label],
        'probabilities': {run.class_names[i]: round(float(found.probabilities[i]), 6) for i in best},
        'boxes': to_source_pixels(found.boxes, shape, run.config.data).round(1).tolist(),
        'scale': [round(float(scale), 4) for scale in found.scales],
        'orientation': found.orientations,
    }


def _readable(files: list[Path], unreadable: list[str]) -> Iterator[tuple[Path, np.ndarray]]:
    for file in files:
        try:
            yield file, decode_image(file.read_bytes(), str(file))
        except (UserError, OSError) as error:
            unreadable.append(str(error))


def _too_long(name: str) -> bool:
    return len(os.fsencode(name)) > LONGEST_NAME


def _unique(file: Path, name: str) -> str:
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:12]
    # The end of a path says more than its beginning. A character that is cut in two is dropped.
    return f'{digest}_{os.fsencode(name)[-LONGEST_NAME:].decode(errors="ignore")}'


@contextlib.contextmanager
def _written(out: Path) -> Iterator[TextIO]:
    """Takes the lines of `predictions.jsonl`, which is there when all are: until then an earlier one stays."""
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
    cli.run(main)
