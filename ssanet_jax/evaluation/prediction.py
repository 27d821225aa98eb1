"""The prediction for one image."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.fonts import can_draw

# The orientations that oriented pooling chooses from, in the order of `oriented_features`.
ORIENTATIONS = ('horizontal', 'vertical', 'horizontal reversed', 'vertical reversed')


@dataclasses.dataclass(frozen=True)
class UnsureLimits:
    """From where on a prediction is unsure."""

    novelty: float = 0.95  # one known image in twenty is taken for a stranger
    score: float = 0.5  # below, a class is more likely wrong than right


UNSURE_LIMITS = UnsureLimits()


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Why the predicted class won: what each term of its logit adds over that of the runner-up.

    The prediction is a sum of logits, so the terms add up to the difference of the two logits.
    """

    runner_up: str  # name of the class with the second-highest score; empty if there is only one class
    parts: tuple[float, ...]  # term of each part, summed over the heads that read parts
    image: float  # term of the whole image, where it takes part in the prediction; else 0
    bias: float  # term of the biases of the heads that read parts

    @property
    def total(self) -> float:
        """The difference of the two logits."""
        return sum(self.parts) + self.image + self.bias


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one image. Boxes are `(y0, x0, y1, x1)`; K is 0 for a network without parts."""

    label: str  # name of the predicted class
    class_index: int
    score: float  # probability of the predicted class
    probabilities: np.ndarray = dataclasses.field(repr=False)  # float32 [N]
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    boxes: np.ndarray  # float32 [K, 4], the parts, pixels of the source image after its EXIF orientation
    scales: np.ndarray  # float32 [K], side of each box over that of its proposal; [0] without scale mining
    orientations: tuple[str, ...]  # orientation of each part; empty without oriented pooling
    evidence: Evidence
    path: str | None  # path of the file; None for an image in memory
    image: np.ndarray = dataclasses.field(repr=False)  # uint8 [S, S, 3], the network's input
    input_boxes: np.ndarray = dataclasses.field(repr=False)  # float32 [K, 4], `boxes` in pixels of that input
    input_proposals: np.ndarray = dataclasses.field(repr=False)  # float32 [K, 4], the parts before scale mining
    present: tuple[bool, ...] = ()  # whether each part is to be seen; empty if the network does not know
    angle: float | None = None  # degrees, clockwise, by which the image was turned upright; None if it is not turned
    novelty: float | None = None  # share of held-out images that are less strange; None without held-out images
    source_size: tuple[int, int] = (0, 0)  # height and width of the source image after its EXIF orientation, pixels
    # Averaged feature maps of the whole image, float16 [C], and of each part, [K, D].
    image_features: np.ndarray | None = dataclasses.field(default=None, repr=False)
    part_features: np.ndarray | None = dataclasses.field(default=None, repr=False)
    read_photo: Callable[[], np.ndarray] | None = dataclasses.field(default=None, repr=False)  # the source image again
    limits: UnsureLimits = dataclasses.field(default=UNSURE_LIMITS, repr=False)

    @property
    def unsure(self) -> str:
        """The reason to doubt the label, or an empty string.

        An image more novel than `limits.novelty` of the held-out images may show none of the classes, and a score below
        `limits.score` is more likely wrong than right. Without held-out images nothing is known, and nothing said.
        """
        if self.novelty is None:
            return ''
        if self.novelty >= self.limits.novelty:
            return f'may be none of the classes: stranger than {100 * self.novelty:.0f} % of known images'
        if self.score < self.limits.score and self.evidence.runner_up:
            return f'could also be {self.evidence.runner_up}'
        return ''

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """`boxes` as `(x0, y0, x1, y1)`."""
        return self.boxes[:, [1, 0, 3, 2]]

    def features(self, part: int | None = None) -> np.ndarray:
        """The features of the whole image, `[C]`, or of a part, `[D]`; longer where covariances are classified.

        Raises:
          ValueError: the network has no such part, or gives no features.
        """
        if self.image_features is None or self.part_features is None:
            raise ValueError('the network of this prediction gives no features')
        if part is None:
            return self.image_features
        if not 0 <= part < len(self.part_features):
            raise ValueError(f'part {part} of {len(self.part_features)}: parts are numbered from 0')
        return self.part_features[part]

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """The `n` most probable classes with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind='stable')[:n]
        return [(self.class_names[i], float(self.probabilities[i])) for i in best]

    def photo(self) -> np.ndarray:
        """The source image, uint8 `[H, W, 3]`, RGB, read again; the network's input if there is no source.

        Raises:
          UnreadableImage: the image can no longer be read.
        """
        return self.image if self.read_photo is None else self.read_photo()

    def plot(self, side: int = 448, *, details: bool = False) -> Image.Image:
        """The photo with its parts drawn on it, class and probability below.

        Args:
          side: longer side of the photo in the picture, pixels.
          details: also write the chosen scale and orientation of each part.
        """
        return Image.fromarray(self._draw(side, details))

    def save(self, path: str | os.PathLike[str], side: int = 448, *, details: bool = False) -> None:
        """Writes `plot(side, details=details)` as the suffix of `path` says (.png, .jpg).

        Raises:
          UserError: the file cannot be written.
        """
        _drawing().save_picture(Path(path), self._draw(side, details))

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """The prediction in plain Python types, for JSON; of the probabilities, those of the `top` best classes."""
        angle = {} if self.angle is None else {'angle': self.angle}
        present = {'present': list(self.present)} if self.present else {}
        return {
            'path': self.path,
            'label': self.label,
            'class_index': self.class_index,
            'score': self.score,
            'top': dict(self.top(top)),
            'boxes': self.boxes.astype(float).round(2).tolist(),
            'scales': self.scales.astype(float).round(4).tolist(),
            'orientations': list(self.orientations),
            'evidence': dataclasses.asdict(self.evidence) | {'parts': list(self.evidence.parts)},
            **present,
            **angle,
            **self.trust(),
        }

    def trust(self) -> dict[str, Any]:
        """`novelty` and `unsure`, for JSON; empty without held-out images."""
        return {} if self.novelty is None else {'novelty': round(self.novelty, 4), 'unsure': self.unsure}

    def drawn_name(self, class_index: int) -> str:
        """The name of a class in a picture: 'class 12' if no font of this machine can draw its name."""
        name = self.class_names[class_index]
        return name if can_draw(name) else f'class {class_index}'

    def _draw(self, side: int, details: bool) -> np.ndarray:
        draw = _drawing().draw_parts
        # No network is certain, so 0.99 is the most that a picture says.
        caption = f'{self.drawn_name(self.class_index)}  {min(self.score, 0.99):.2f}'
        if self.unsure:
            caption = f'unsure: {caption}'
        has_scales = details and (self.scales != 1).any()  # a single scale is no choice
        boxes = self.input_boxes if self.read_photo is None else self.boxes
        orientations = self.orientations if details else ()
        return draw(self.photo(), boxes, self.scales if has_scales else (), caption, side, orientations=orientations)


def _drawing() -> Any:
    """The module that draws. It needs OpenCV, which an exported network does without until it draws."""
    try:
        from ssanet_jax.evaluation import drawing
    except ImportError as error:
        raise UserError(f'pictures need OpenCV ({error}): pip install opencv-python-headless matplotlib') from error
    return drawing
