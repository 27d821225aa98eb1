"""Recognises images with a trained run.

    python -m ssanet_jax.predict --workdir=runs/cub --out=predictions IMAGE_OR_FOLDER...

Writes `predictions.jsonl`, one line an image (class, probabilities, boxes of the parts in pixels
of the image, the scale and orientation chosen for each), and a picture of the parts beside it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import track

from ssanet_jax import command
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.transforms import for_evaluation, to_source_pixels
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.figures import draw_parts, save_picture
from ssanet_jax.evaluation.recognise import Recogniser, Recognition
from ssanet_jax.training import experiment

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_OUT = flags.DEFINE_string('out', 'predictions', 'Folder to write to.')
_TOP = flags.DEFINE_integer('top', 5, 'Number of classes to list for each image.', lower_bound=1)

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
BATCH = 8


def main(arguments: list[str]) -> None:
    """Recognises every image; an unreadable one is named and left out, and the exit code is then 2."""
    files = find_images(arguments)
    console = Console(stderr=True)
    run = experiment.load_run(Path(_WORKDIR.value))
    recogniser = Recogniser(run.model, run.active, BATCH)
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    unreadable = []
    with (out / 'predictions.jsonl').open('w') as lines:
        for first in track(range(0, len(files), BATCH), 'recognising', console=console, transient=True):
            images = list(_readable(files[first : first + BATCH], unreadable))
            inputs = [for_evaluation(image, run.config.data) for _, image in images]
            for (file, image), picture, found in zip(images, inputs, recogniser(inputs)):
                line = describe(file, image.shape[:2], found, run, _TOP.value)
                lines.write(json.dumps(line) + '\n')
                caption = f'{line["class"]}  {line["probabilities"][line["class"]]:.2f}'
                save_picture(out / f'{_flat_name(file)}.png', draw_parts(picture, found.boxes, found.scales, caption))
    print(f'{len(files) - len(unreadable)} images recognised: see {out}')
    if unreadable:
        raise UserError(
            f'{len(unreadable)} of {len(files)} images cannot be read and were left out: {"; ".join(unreadable[:3])}'
        )


def find_images(arguments: list[str]) -> list[Path]:
    """The images named, and those in the folders named, sorted.

    Raises:
      UserError: if a path does not exist, or there is no image at all.
    """
    files: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not path.exists():
            raise UserError(f'{path} does not exist: give images or folders of images')
        files += sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f'no image ({", ".join(SUFFIXES)}) in {", ".join(arguments) or "the arguments"}: give images or folders'
        )
    return files


def describe(file: Path, shape: tuple[int, int], found: Recognition, run: experiment.Run, top: int) -> dict:
    """One JSON line: boxes are `[y0, x0, y1, x1]` in pixels of the image, one a part."""
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


def _flat_name(file: Path) -> str:
    """A name for the picture that keeps two files of one name in two folders apart."""
    return '_'.join(part for part in file.with_suffix('').parts if part not in ('/', '..', '.'))


if __name__ == '__main__':
    command.run(main)
