"""Drawing of toy_birds images: a bird, parts of other birds, branches, leaves and light.

There are three coordinate systems: a part's own, in bird lengths, with x towards the beak and y down; the canvas's, in
fractions of its side; and pixels of the finished image, where (0, 0) is the outer corner of the first pixel.
"""

import colorsys
import dataclasses
import math
import types
from collections.abc import Sequence

import cv2
import numpy as np

KEYPOINT_NAMES = ('beak', 'crown', 'wing', 'tail')

SUPERSAMPLE = 2  # the image is drawn at twice its size and averaged down, for smooth edges
SUBPIXEL_BITS = 4  # fractional bits of OpenCV's drawing coordinates
LENGTH = (0.5, 0.7)  # of the bird, in image sides
ROTATION = 30  # maximum of the bird, in degrees; the next three are maxima, too
HEAD_ANGLE, WING_ANGLE, TAIL_ANGLE = 14, 12, 16
LEAVES, BLOBS = 5, 6  # in each background
DECOY_TRIES = 8  # candidate positions per decoy, of which the best is used
MARGIN = 0.03  # between bird and border, in image sides
OUTLINE = 0.017  # in bird lengths


def _points(*numbers):
    """x, y, x, y, ... in hundredths of a bird's length -> [P, 2] in bird lengths."""
    return np.array(numbers, np.float64).reshape(-1, 2) / 100


def _smooth(*numbers):
    """Like `_points`, for a closed outline whose corners are rounded by two rounds of Chaikin's corner cutting."""
    points = _points(*numbers)
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def _arc(radius_x, radius_y, start=0, stop=360, count=20):
    """Points on an ellipse: radii in hundredths, angles in degrees, clockwise on the screen from the x axis."""
    angle = np.radians(np.linspace(start, stop, count))
    return np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], axis=1) / 100


def _bar(x, width):
    """A wing bar around x, in hundredths."""
    left, right = x - width / 2, x + width / 2
    return _points(left, -7.5, right, -7.5, right + 2, 10, left + 2, 10)


# Where parts are attached: beak and eye to the head, the others to the body. Then the key points, relative to their
# part.
HEAD_AT, WING_AT, TAIL_AT, PERCH_AT, BEAK_AT, EYE_AT = _points(19, -15, 9, -5, -20, 0, 4, 30, 12.5, 1, 5.5, -2)
BEAK_MARK, CROWN_MARK, WING_MARK, TAIL_MARK = _points(8, 2, -4, -14, -10, 1, -19, 0)

BODY = _smooth(-27, -3, -12, -17, 10, -24, 30, -17, 29, 4, 16, 18, -2, 22, -18, 12)
BELLY = _smooth(-14, 10, 2, 6, 18, -6, 27, -5, 26, 5, 14, 16, -1, 19)
HEAD, CHEEK = _arc(15, 14.5), _arc(4.5, 3.5, count=12) + (0.035, 0.065)
EYE, PUPIL, GLINT = _arc(4.2, 4.2, count=14), _arc(2.8, 2.8, count=12), _arc(1, 1, count=8) + (0.01, -0.012)
WING = _smooth(9, -6, -3, -14, -20, -9, -37, 6, -20, 13, -2, 15, 9, 7)
LEAF = _smooth(-50, 0, -20, -22, 20, -20, 55, 0, 20, 20, -20, 22)

# Two shapes of each part.
BEAK = (
    _points(0, -7, 7, -4.5, 15, 2, 7, 5.5, 0, 7),
    _points(0, -5, 9, -5, 17, -1, 22, 6, 24, 15, 18, 8.5, 11, 4.5, 0, 4.5),
)
CROWN = (
    np.concatenate([_arc(15.5, 15.5, 190, 325), _points(5, -4.5, -7, -3)]),
    np.concatenate(
        [
            _points(-14, -2, -27, -10, -17, -13, -22, -25, -9, -19, -7, -31, 3, -19),
            _arc(15.5, 15.5, 290, 325, count=5),
            _points(5, -4.5, -7, -3),
        ]
    ),
)
WING_BARS = ([_bar(-9, 9.5)], [_bar(-17, 5.5), _bar(-4, 5.5)])
TAIL = (
    _points(5, -6, -16, -10, -32, -16, -26, -7, -14, 0, -26, 7, -32, 16, -16, 10, 5, 6),
    np.concatenate([_points(5, -6), _arc(13, 13, 260, 100) + (-0.16, 0), _points(5, 6)]),
)
TAIL_BANDS = (
    [_points(-23, -12.5, -32, -16, -26, -7, -20, -3.5), _points(-23, 12.5, -32, 16, -26, 7, -20, 3.5)],
    [np.concatenate([_arc(13, 13, 235, 125, 9), _arc(7, 10.5, 125, 235, 9)]) + (-0.16, 0)],
)

# A hull of the bird in any class and pose. The bird is placed by it, so that its position is independent of the class.
REACH = _points(-54, -12, -50, 22, -20, -38, 30, -48, 58, -20, 56, 8, 5, 32)
# Decoys keep away from these points where there is room, so that none looks like a part of the bird.
SKELETON = _points(-50, 0, -25, 0, 0, 0, 5, -35, 19, -15, 25, -35, 50, -10, 5, 25)


@dataclasses.dataclass
class Pen:
    """Draws polygons given in a part's own coordinates: canvas = points @ matrix + origin."""

    canvas: np.ndarray  # [side, side, 3] uint8
    matrix: np.ndarray  # [2, 2]
    origin: np.ndarray  # [2], (x, y)
    outline: tuple | None = None  # color of the edges
    drawn: list = dataclasses.field(default_factory=list)  # bounds of everything drawn, in canvas coordinates

    def place(self, points) -> np.ndarray:
        """Maps points to fractions of the canvas's side."""
        return np.asarray(points) @ self.matrix + self.origin

    def at(self, point, degrees=0.0) -> 'Pen':
        """A pen whose origin is `point`, rotated by `degrees`."""
        return Pen(self.canvas, _frame(1, degrees) @ self.matrix, self.place(point), self.outline, self.drawn)

    def fill(self, points, color, edge=True):
        """Draws a filled polygon, with an edge in the pen's outline color."""
        cv2.fillPoly(self.canvas, [self._fixed(points, 2)], color, cv2.LINE_AA, SUBPIXEL_BITS)
        if edge and self.outline is not None:
            self.line(points, self.outline, OUTLINE, closed=True)

    def line(self, points, color, width, closed=False):
        """Draws a line through the points, with its width in the pen's own units."""
        scale = math.hypot(*self.matrix[0])  # the matrices rotate, flip and scale uniformly
        thickness = max(1, round(width * scale * len(self.canvas)))
        fixed = self._fixed(points, thickness / 2 + 1)
        # LINE_AA takes four times as long for thick lines, and averaging down smooths them anyway.
        cv2.polylines(self.canvas, [fixed], closed, color, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def _fixed(self, points, reach):
        """Maps points to OpenCV's fixed-point pixels, and records their bounds, widened by `reach` pixels."""
        placed, reach = self.place(points), reach / len(self.canvas)
        self.drawn += [placed - reach, placed + reach]
        pixels = placed * len(self.canvas) - 0.5  # OpenCV counts from pixel centers
        return np.rint(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def _frame(length, degrees, flip=False):
    """[2, 2] matrix for row vectors (x, y) that flips, scales, then rotates clockwise on the screen."""
    cosine, sine = length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees))
    mirror = -1 if flip else 1
    return np.array([(mirror * cosine, mirror * sine), (-sine, cosine)])


def _color(hue, saturation, value):
    """RGB in 0..255, from hue (periodic), saturation and value in 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def _plumage(rng):
    """Random colors of a bird or a decoy, independent of the class."""
    hue, crown, beak, saturation, value, light = rng.random(6).tolist()
    saturation, value = 0.35 + 0.45 * saturation, 0.6 + 0.3 * value
    return types.SimpleNamespace(
        body=_color(hue, saturation, value),
        belly=_color(hue + 0.04, 0.3 * saturation, 0.98),
        wing=_color(hue, saturation + 0.1, 0.62 * value),
        tail=_color(hue, saturation + 0.1, 0.70 * value),
        # Two per part; the form of the part selects one, for birds and decoys alike.
        beak=(_color(0.05 + 0.05 * beak, 0.9, 0.98), _color(0.55 + 0.1 * beak, 0.35, 0.4)),
        crown=(_color(0.95 + 0.07 * crown, 0.9, 0.9), _color(0.56 + 0.1 * crown, 0.9, 0.9)),
        bar=(_color(0.12, 0.1 * light, 1.0), _color(0.12 + 0.04 * light, 0.85, 0.98)),
        band=(_color(0.12, 0.1 * light, 1.0), _color(0.7, 0.4, 0.12 + 0.1 * light)),
        outline=_color(hue, 0.6, 0.2),
    )


def draw_beak(pen, form, colors):
    """Forms 0 and 1: a short cone. 2 and 3: long and curved down. Orange or slate."""
    shape, color = divmod(form, 2)
    pen.fill(BEAK[shape], colors.beak[color])
    pen.line([(0.0, 0.01), BEAK[shape][2] * (0.7, 0.6)], colors.outline, OUTLINE / 2)


def draw_crown(pen, form, colors):
    """Forms 0 and 1: a smooth cap. 2 and 3: a crest of three spikes. Red or blue."""
    shape, color = divmod(form, 2)
    pen.fill(CROWN[shape], colors.crown[color])


def draw_wing(pen, form, colors):
    """Forms 0 and 1: one broad bar. 2 and 3: two narrow ones. White or yellow."""
    shape, color = divmod(form, 2)
    pen.fill(WING, colors.wing)
    for bar in WING_BARS[shape]:
        pen.fill(bar, colors.bar[color], edge=False)


def draw_tail(pen, form, colors):
    """Forms 0 and 1: forked. 2 and 3: rounded. With a white or a dark band at the end."""
    shape, color = divmod(form, 2)
    pen.fill(TAIL[shape], colors.tail, edge=False)
    for band in TAIL_BANDS[shape]:
        pen.fill(band, colors.band[color], edge=False)
    pen.line(TAIL[shape], colors.outline, OUTLINE, closed=True)


def draw_head(pen, beak, crown, colors):
    """Draws a head with eye, crown and beak."""
    pen.fill(HEAD, colors.body)
    pen.fill(CHEEK, colors.belly, edge=False)
    draw_crown(pen, crown, colors)
    draw_beak(pen.at(BEAK_AT), beak, colors)
    for shape, color in ((EYE, (255, 255, 255)), (PUPIL, (20, 15, 15)), (GLINT, (255, 255, 255))):
        pen.fill(shape + EYE_AT, color, edge=False)


def draw_decoy(canvas, rng, center):
    """Draws a ball with a head, a wing or a tail of random form, which looks like a bird up close."""
    colors = _plumage(rng)
    kind, form, other = rng.integers(3), rng.integers(4), rng.integers(4)
    matrix = _frame(rng.uniform(*LENGTH), rng.uniform(-ROTATION, ROTATION), rng.random() < 0.5)
    pen = Pen(canvas, matrix, center, colors.outline)
    ball = _arc(*rng.uniform(15, 19, 2))
    if kind == 0:
        pen.fill(ball + (-0.04, 0.1), colors.body)
        draw_head(pen.at((0.02, -0.08)), form, other, colors)
    elif kind == 1:
        pen.fill(ball, colors.body)
        draw_wing(pen.at((0.1, 0.0)), form, colors)
    else:
        draw_tail(pen.at((-0.04, 0.0)), form, colors)
        pen.fill(ball + (0.1, 0), colors.body)


def draw_leaf(canvas, rng):
    """Draws a leaf with its midrib."""
    pen = Pen(canvas, _frame(rng.uniform(0.12, 0.3), rng.uniform(0, 360)), rng.random(2))
    hue, value = rng.uniform(0.18, 0.42), rng.uniform(0.3, 0.65)
    pen.fill(LEAF, _color(hue, 0.5, value))
    pen.line([(-0.6, 0), (0.45, 0)], _color(hue, 0.4, value + 0.12), 0.04)


def draw_branch(pen, rng):
    """Draws a slightly bent branch along the pen's x axis, longer than the canvas."""
    points = np.stack([np.linspace(-3, 3, 7), rng.uniform(-0.03, 0.03, 7)], axis=1)
    hue, value, width = rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.04, 0.08)
    pen.line(points, _color(hue, 0.5, 0.7 * value), width + 0.02)
    pen.line(points - (0, 0.01), _color(hue, 0.45, value), width)


def draw_background(rng, side):
    """Draws blurred colors and blobs, leaves and a branch; returns uint8 [side, side, 3]."""
    hue, value = rng.random(), rng.uniform(0.35, 0.8)
    shades = [
        _color(hue + 0.25 * h, 0.15 + 0.3 * s, value * (0.75 + 0.4 * v)) for h, s, v in rng.random((9, 3)).tolist()
    ]
    # Drawn small and enlarged, which gives the blur of a shallow depth of field at little cost.
    small = cv2.resize(np.array(shades, np.uint8).reshape(3, 3, 3), (32, 32), interpolation=cv2.INTER_CUBIC)
    for x, y, radius, tint in rng.random((BLOBS, 4)).tolist():
        cv2.circle(small, (int(32 * x), int(32 * y)), int(2 + 4 * radius), _color(hue + 0.3 * tint, 0.35, value), -1)
    canvas = cv2.resize(cv2.blur(small, (3, 3)), (side, side), interpolation=cv2.INTER_LINEAR)
    draw_branch(Pen(canvas, _frame(rng.uniform(0.4, 0.9), rng.uniform(0, 360)), rng.random(2)), rng)
    for _ in range(LEAVES):
        draw_leaf(canvas, rng)
    return canvas


def _decoy_centers(rng, count, taken):
    """Positions [count, 2], (x, y), of the decoys: each the best of several, far from the bird and other decoys."""
    for _ in range(count):
        candidates = rng.uniform(0.08, 0.92, (DECOY_TRIES, 2))
        nearest = np.linalg.norm(candidates[:, None] - taken, axis=-1).min(axis=1)
        taken = np.concatenate([taken, candidates[nearest.argmax()][None]])
    return taken[len(taken) - count :]


def _light(image, rng):
    """Adds light from one side, a tint, texture and sensor noise, all independent of the class."""
    size = len(image)
    low, high = np.sort(rng.uniform(0.72, 1.12, 2))
    left, right = rng.uniform(0.92, 1.06, 2)
    ramp = np.linspace(low, high, size, dtype=np.float32)[:, None] * np.linspace(left, right, size, dtype=np.float32)
    texture = cv2.resize(rng.normal(1, 0.05, (48, 48)).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    gain = ramp * texture
    gain = cv2.merge([gain * np.float32(tint) for tint in rng.uniform(0.94, 1.06, 3)])
    noise = np.frombuffer(rng.bytes(image.size), np.int8).reshape(image.shape) >> 5  # -4..3
    return cv2.add(cv2.multiply(image, gain, dtype=cv2.CV_8U), noise, dtype=cv2.CV_8U)


def draw_forms(
    forms: Sequence[int], rng: np.random.Generator, size: int = 128, distractors: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a bird whose beak, crown, wing and tail have these forms.

    The random numbers used do not depend on the forms: with equal generators, images differ only at the parts whose
    forms differ.

    Args:
      forms: the forms of beak, crown, wing and tail, each in 0..3.
      rng: source of randomness.
      size: side of the image, in pixels.
      distractors: number of parts of other birds in the background.

    Returns:
      (image, keypoints, box): uint8 [size, size, 3], RGB; float32 [4, 3], (y, x, visible) in pixels, in the order of
      `KEYPOINT_NAMES`; float32 [4], (y0, x0, y1, x1) in pixels, the bounding box of the whole bird.
    """
    beak, crown, wing, tail = forms
    length, degrees, flip = rng.uniform(*LENGTH), rng.uniform(-ROTATION, ROTATION), rng.random() < 0.5
    head_angle, wing_angle, tail_angle = rng.uniform(-1, 1, 3) * (HEAD_ANGLE, WING_ANGLE, TAIL_ANGLE)
    matrix, colors = _frame(length, degrees, flip), _plumage(rng)
    reach = REACH @ matrix
    low, high = MARGIN - reach.min(axis=0), 1 - MARGIN - reach.max(axis=0)
    origin = low + rng.random(2) * np.maximum(high - low, 0)

    canvas = draw_background(rng, size * SUPERSAMPLE)
    bird = Pen(canvas, matrix, origin, colors.outline)
    draw_branch(Pen(canvas, matrix, bird.place(PERCH_AT)), rng)
    for center in _decoy_centers(rng, distractors, bird.place(SKELETON)):
        draw_decoy(canvas, rng, center)

    tail_pen, wing_pen, head = bird.at(TAIL_AT, tail_angle), bird.at(WING_AT, wing_angle), bird.at(HEAD_AT, head_angle)
    draw_tail(tail_pen, tail, colors)
    for x in (0.0, 0.08):
        bird.line([(x, 0.15), (x, 0.27), (x + 0.04, 0.28)], colors.outline, 0.025)
    bird.fill(BODY, colors.body)
    bird.fill(BELLY, colors.belly, edge=False)
    draw_wing(wing_pen, wing, colors)
    draw_head(head, beak, crown, colors)

    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    marks = ((head.at(BEAK_AT), BEAK_MARK), (head, CROWN_MARK), (wing_pen, WING_MARK), (tail_pen, TAIL_MARK))
    # The bird is always whole and in front: every key point is visible.
    keypoints = np.array([(*pen.place(mark)[::-1] * size, 1) for pen, mark in marks], np.float32)
    drawn = np.concatenate(bird.drawn)
    (x0, y0), (x1, y1) = drawn.min(axis=0), drawn.max(axis=0)
    return _light(image, rng), keypoints, np.array([y0, x0, y1, x1], np.float32) * np.float32(size)
