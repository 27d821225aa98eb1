"""How a picture of toy_birds is drawn: a bird, pieces of other birds, branches, leaves and light.

Three coordinate systems occur: a part's own, in bird lengths, x towards the beak and y down; the picture's, in
fractions of its side; and pixels of the finished image, where (0, 0) is the outer corner of the first pixel.
"""

import colorsys
import dataclasses
import math
import types

import cv2
import numpy as np

KEYPOINT_NAMES = ('beak', 'crown', 'wing', 'tail')

SUPERSAMPLE = 2  # drawn at twice the size and averaged down: smooth edges
SUBPIXEL_BITS = 4  # OpenCV's fixed-point drawing coordinates
LENGTH = (0.5, 0.7)  # of the bird, in image sides
ROTATION = 30  # degrees, either way; likewise the next three
HEAD_ANGLE, WING_ANGLE, TAIL_ANGLE = 14, 12, 16
LEAVES, BLOBS = 5, 6  # in each background
DECOY_TRIES = 8  # places from which the best is taken
MARGIN = 0.03  # between bird and border, in image sides
OUTLINE = 0.017  # in bird lengths


def _points(*numbers):
    """x, y, x, y, ... in hundredths of a bird's length -> [P, 2] in bird lengths."""
    return np.array(numbers, np.float64).reshape(-1, 2) / 100


def _smooth(*numbers):
    """As _points, a closed outline whose corners are rounded by cutting them twice (Chaikin)."""
    points = _points(*numbers)
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def _arc(radius_x, radius_y, start=0, stop=360, count=20):
    """Points on an ellipse, radii in hundredths, angles in degrees, clockwise on the screen from the x axis."""
    angle = np.radians(np.linspace(start, stop, count))
    return np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], axis=1) / 100


def _bar(x, width):
    left, right = x - width / 2, x + width / 2
    return _points(left, -7.5, right, -7.5, right + 2, 10, left + 2, 10)


# Where parts are fixed: to the body, but beak and eye to the head. Then the key points, in their part's coordinates.
HEAD_AT, WING_AT, TAIL_AT, PERCH_AT, BEAK_AT, EYE_AT = _points(19, -15, 9, -5, -20, 0, 4, 30, 12.5, 1, 5.5, -2)
BEAK_MARK, CROWN_MARK, WING_MARK, TAIL_MARK = _points(8, 2, -4, -14, -10, 1, -19, 0)

BODY = _smooth(-27, -3, -12, -17, 10, -24, 30, -17, 29, 4, 16, 18, -2, 22, -18, 12)
BELLY = _smooth(-14, 10, 2, 6, 18, -6, 27, -5, 26, 5, 14, 16, -1, 19)
HEAD, CHEEK = _arc(15, 14.5), _arc(4.5, 3.5, count=12) + (0.035, 0.065)
EYE, PUPIL, GLINT = _arc(4.2, 4.2, count=14), _arc(2.8, 2.8, count=12), _arc(1, 1, count=8) + (0.01, -0.012)
WING = _smooth(9, -6, -3, -14, -20, -9, -37, 6, -20, 13, -2, 15, 9, 7)
LEAF = _smooth(-50, 0, -20, -22, 20, -20, 55, 0, 20, 20, -20, 22)

# The two shapes of each part.
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

# Around all that a bird of any class and pose may cover: the bird is placed by these, so that the place tells nothing.
REACH = _points(-54, -12, -50, 22, -20, -38, 30, -48, 58, -20, 56, 8, 5, 32)
# Decoys keep away from these as far as there is room, so that none looks like a part of the bird.
SKELETON = _points(-50, 0, -25, 0, 0, 0, 5, -35, 19, -15, 25, -35, 50, -10, 5, 25)


@dataclasses.dataclass
class Pen:
    """Draws polygons given in a part's own coordinates: picture = points @ matrix + origin."""

    canvas: np.ndarray  # [side, side, 3] uint8
    matrix: np.ndarray  # [2, 2]
    origin: np.ndarray  # [2], (x, y)
    outline: tuple | None = None  # colour of the edges
    drawn: list = dataclasses.field(default_factory=list)  # points of the picture around what was drawn

    def place(self, points) -> np.ndarray:
        """Points in fractions of the picture's side."""
        return np.asarray(points) @ self.matrix + self.origin

    def at(self, point, degrees=0.0) -> 'Pen':
        """A pen whose origin is `point`, turned by `degrees`."""
        return Pen(self.canvas, _frame(1, degrees) @ self.matrix, self.place(point), self.outline, self.drawn)

    def fill(self, points, colour, edge=True):
        """A polygon, with an edge in the pen's outline colour."""
        cv2.fillPoly(self.canvas, [self._fixed(points, 2)], colour, cv2.LINE_AA, SUBPIXEL_BITS)
        if edge and self.outline is not None:
            self.line(points, self.outline, OUTLINE, closed=True)

    def line(self, points, colour, width, closed=False):
        """A line through the points, `width` in the pen's own units."""
        scale = math.hypot(*self.matrix[0])  # the matrices turn, flip and scale evenly
        thickness = max(1, round(width * scale * len(self.canvas)))
        fixed = self._fixed(points, thickness / 2 + 1)
        # LINE_AA costs four times as much on thick lines, and the averaging down smooths them anyway.
        cv2.polylines(self.canvas, [fixed], closed, colour, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def _fixed(self, points, reach):
        """Points as OpenCV wants them; it colours pixels of the canvas up to about `reach` pixels away from them."""
        placed, reach = self.place(points), reach / len(self.canvas)
        self.drawn += [placed - reach, placed + reach]
        pixels = placed * len(self.canvas) - 0.5  # OpenCV counts from pixel centres
        return np.rint(pixels * 2**SUBPIXEL_BITS).astype(np.int32)


def _frame(length, degrees, flip=False):
    """[2, 2] matrix for points that are rows (x, y): flips, scales, then turns clockwise on the screen."""
    cosine, sine = length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees))
    mirror = -1 if flip else 1
    return np.array([(mirror * cosine, mirror * sine), (-sine, cosine)])


def _colour(hue, saturation, value):
    """RGB in 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def _plumage(rng):
    """Colours of a bird or of a decoy, drawn independently of the class."""
    hue, crown, beak, saturation, value, light = rng.random(6).tolist()
    saturation, value = 0.35 + 0.45 * saturation, 0.6 + 0.3 * value
    return types.SimpleNamespace(
        body=_colour(hue, saturation, value),
        belly=_colour(hue + 0.04, 0.3 * saturation, 0.98),
        wing=_colour(hue, saturation + 0.1, 0.62 * value),
        tail=_colour(hue, saturation + 0.1, 0.70 * value),
        # Two for each part, of which its form picks one, the same way in birds and decoys.
        beak=(_colour(0.05 + 0.05 * beak, 0.9, 0.98), _colour(0.55 + 0.1 * beak, 0.35, 0.4)),
        crown=(_colour(0.95 + 0.07 * crown, 0.9, 0.9), _colour(0.56 + 0.1 * crown, 0.9, 0.9)),
        bar=(_colour(0.12, 0.1 * light, 1.0), _colour(0.12 + 0.04 * light, 0.85, 0.98)),
        band=(_colour(0.12, 0.1 * light, 1.0), _colour(0.7, 0.4, 0.12 + 0.1 * light)),
        outline=_colour(hue, 0.6, 0.2),
    )


def draw_beak(pen, form, colours):
    """Forms 0 and 1: a short cone. 2 and 3: long and curved down. Orange or slate."""
    shape, colour = divmod(form, 2)
    pen.fill(BEAK[shape], colours.beak[colour])
    pen.line([(0.0, 0.01), BEAK[shape][2] * (0.7, 0.6)], colours.outline, OUTLINE / 2)


def draw_crown(pen, form, colours):
    """Forms 0 and 1: a smooth cap. 2 and 3: a crest of three spikes. Red or blue."""
    shape, colour = divmod(form, 2)
    pen.fill(CROWN[shape], colours.crown[colour])


def draw_wing(pen, form, colours):
    """Forms 0 and 1: one broad bar. 2 and 3: two narrow ones. White or yellow."""
    shape, colour = divmod(form, 2)
    pen.fill(WING, colours.wing)
    for bar in WING_BARS[shape]:
        pen.fill(bar, colours.bar[colour], edge=False)


def draw_tail(pen, form, colours):
    """Forms 0 and 1: forked. 2 and 3: rounded. With a white or a dark band at the end."""
    shape, colour = divmod(form, 2)
    pen.fill(TAIL[shape], colours.tail, edge=False)
    for band in TAIL_BANDS[shape]:
        pen.fill(band, colours.band[colour], edge=False)
    pen.line(TAIL[shape], colours.outline, OUTLINE, closed=True)


def draw_head(pen, beak, crown, colours):
    """A head with its eye, its crown and its beak."""
    pen.fill(HEAD, colours.body)
    pen.fill(CHEEK, colours.belly, edge=False)
    draw_crown(pen, crown, colours)
    draw_beak(pen.at(BEAK_AT), beak, colours)
    for shape, colour in ((EYE, (255, 255, 255)), (PUPIL, (20, 15, 15)), (GLINT, (255, 255, 255))):
        pen.fill(shape + EYE_AT, colour, edge=False)


def draw_decoy(canvas, rng, centre):
    """A ball with the head, the wing or the tail of some bird, of random form: up close it looks like one."""
    colours = _plumage(rng)
    kind, form, other = rng.integers(3), rng.integers(4), rng.integers(4)
    matrix = _frame(rng.uniform(*LENGTH), rng.uniform(-ROTATION, ROTATION), rng.random() < 0.5)
    pen = Pen(canvas, matrix, centre, colours.outline)
    ball = _arc(*rng.uniform(15, 19, 2))
    if kind == 0:
        pen.fill(ball + (-0.04, 0.1), colours.body)
        draw_head(pen.at((0.02, -0.08)), form, other, colours)
    elif kind == 1:
        pen.fill(ball, colours.body)
        draw_wing(pen.at((0.1, 0.0)), form, colours)
    else:
        draw_tail(pen.at((-0.04, 0.0)), form, colours)
        pen.fill(ball + (0.1, 0), colours.body)


def draw_leaf(canvas, rng):
    """A leaf with its middle vein."""
    pen = Pen(canvas, _frame(rng.uniform(0.12, 0.3), rng.uniform(0, 360)), rng.random(2))
    hue, value = rng.uniform(0.18, 0.42), rng.uniform(0.3, 0.65)
    pen.fill(LEAF, _colour(hue, 0.5, value))
    pen.line([(-0.6, 0), (0.45, 0)], _colour(hue, 0.4, value + 0.12), 0.04)


def draw_branch(pen, rng):
    """A slightly bent branch along the x axis of the pen, longer than the picture."""
    points = np.stack([np.linspace(-3, 3, 7), rng.uniform(-0.03, 0.03, 7)], axis=1)
    hue, value, width = rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.04, 0.08)
    pen.line(points, _colour(hue, 0.5, 0.7 * value), width + 0.02)
    pen.line(points - (0, 0.01), _colour(hue, 0.45, value), width)


def draw_background(rng, side):
    """Out-of-focus colours and blobs, then leaves and a branch. [side, side, 3] uint8."""
    hue, value = rng.random(), rng.uniform(0.35, 0.8)
    shades = [
        _colour(hue + 0.25 * h, 0.15 + 0.3 * s, value * (0.75 + 0.4 * v)) for h, s, v in rng.random((9, 3)).tolist()
    ]
    # Drawn small and blown up: the blur of a shallow depth of field, at little cost.
    small = cv2.resize(np.array(shades, np.uint8).reshape(3, 3, 3), (32, 32), interpolation=cv2.INTER_CUBIC)
    for x, y, radius, tint in rng.random((BLOBS, 4)).tolist():
        cv2.circle(small, (int(32 * x), int(32 * y)), int(2 + 4 * radius), _colour(hue + 0.3 * tint, 0.35, value), -1)
    canvas = cv2.resize(cv2.blur(small, (3, 3)), (side, side), interpolation=cv2.INTER_LINEAR)
    draw_branch(Pen(canvas, _frame(rng.uniform(0.4, 0.9), rng.uniform(0, 360)), rng.random(2)), rng)
    for _ in range(LEAVES):
        draw_leaf(canvas, rng)
    return canvas


def _decoy_centres(rng, count, taken):
    """Best of some random places for each decoy: far from the bird and from one another. [count, 2], (x, y)."""
    for _ in range(count):
        places = rng.uniform(0.08, 0.92, (DECOY_TRIES, 2))
        nearest = np.linalg.norm(places[:, None] - taken, axis=-1).min(axis=1)
        taken = np.concatenate([taken, places[nearest.argmax()][None]])
    return taken[len(taken) - count :]


def _light(image, rng):
    """Light from one side, a tint, surface texture and sensor noise, all independent of what is drawn."""
    size = len(image)
    low, high = np.sort(rng.uniform(0.72, 1.12, 2))
    left, right = rng.uniform(0.92, 1.06, 2)
    ramp = np.linspace(low, high, size, dtype=np.float32)[:, None] * np.linspace(left, right, size, dtype=np.float32)
    texture = cv2.resize(rng.normal(1, 0.05, (48, 48)).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    gain = ramp * texture
    gain = cv2.merge([gain * np.float32(tint) for tint in rng.uniform(0.94, 1.06, 3)])
    noise = np.frombuffer(rng.bytes(image.size), np.int8).reshape(image.shape) >> 5  # -4..3
    return cv2.add(cv2.multiply(image, gain, dtype=cv2.CV_8U), noise, dtype=cv2.CV_8U)


def draw_forms(forms, rng: np.random.Generator, size: int = 128, distractors: int = 4):
    """Draws one picture of a bird whose beak, crown, wing and tail have these forms (0..3).

    The forms never change which random numbers are used: with equal generators, pictures differ only at the parts whose
    forms differ.

    Returns:
      image [size, size, 3] uint8 RGB; keypoints [4, 3] float32, rows (y, x, visible) in pixels in the order of
      KEYPOINT_NAMES; box [4] float32 (y0, x0, y1, x1), in pixels, around everything of the bird that was drawn.
    """
    beak, crown, wing, tail = forms
    length, degrees, flip = rng.uniform(*LENGTH), rng.uniform(-ROTATION, ROTATION), rng.random() < 0.5
    head_angle, wing_angle, tail_angle = rng.uniform(-1, 1, 3) * (HEAD_ANGLE, WING_ANGLE, TAIL_ANGLE)
    matrix, colours = _frame(length, degrees, flip), _plumage(rng)
    reach = REACH @ matrix
    low, high = MARGIN - reach.min(axis=0), 1 - MARGIN - reach.max(axis=0)
    origin = low + rng.random(2) * np.maximum(high - low, 0)

    canvas = draw_background(rng, size * SUPERSAMPLE)
    bird = Pen(canvas, matrix, origin, colours.outline)
    draw_branch(Pen(canvas, matrix, bird.place(PERCH_AT)), rng)
    for centre in _decoy_centres(rng, distractors, bird.place(SKELETON)):
        draw_decoy(canvas, rng, centre)

    tail_pen, wing_pen, head = bird.at(TAIL_AT, tail_angle), bird.at(WING_AT, wing_angle), bird.at(HEAD_AT, head_angle)
    draw_tail(tail_pen, tail, colours)
    for x in (0.0, 0.08):
        bird.line([(x, 0.15), (x, 0.27), (x + 0.04, 0.28)], colours.outline, 0.025)
    bird.fill(BODY, colours.body)
    bird.fill(BELLY, colours.belly, edge=False)
    draw_wing(wing_pen, wing, colours)
    draw_head(head, beak, crown, colours)

    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    marks = ((head.at(BEAK_AT), BEAK_MARK), (head, CROWN_MARK), (wing_pen, WING_MARK), (tail_pen, TAIL_MARK))
    # Nothing hides a part and the bird is always whole: every key point is visible.
    keypoints = np.array([(*pen.place(mark)[::-1] * size, 1) for pen, mark in marks], np.float32)
    drawn = np.concatenate(bird.drawn)
    (x0, y0), (x1, y1) = drawn.min(axis=0), drawn.max(axis=0)
    return _light(image, rng), keypoints, np.array([y0, x0, y1, x1], np.float32) * np.float32(size)
