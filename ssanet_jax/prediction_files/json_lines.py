"""JSON lines: one object per image."""

import json
from collections.abc import Iterable
from typing import Any, TextIO

from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.prediction_files.journal import Record


def write(file: TextIO, records: Iterable[Record], network: str) -> None:
    """Writes a line for each image that could be read."""
    del network
    for record in records:
        if record.line is not None:
            file.write(json.dumps(record.line) + '\n')


def to_line(prediction: Prediction, top: int) -> dict[str, Any]:
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
