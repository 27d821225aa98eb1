"""Is a folder of images what its annotations say? What the doctor looks for, and how sure it is.

Every image is read once (`scan.scan_images`). The checks are pure functions of a `Listing` and its
pictures, and return `Finding`s. A finding is an

* error, if training would stop or its accuracy would not mean what it says: images that are missing
  or cannot be read, other counts than were published although no class is missing, no images in a
  split, a class without training images, labels outside the classes, boxes with nothing of their
  image inside, the same picture in train and test or under two classes;
* warning, if training is right but somebody should know: only part of the published classes, files
  among the images that are left out, classes that are never tested or very uneven, boxes or key points
  that overrun their image, the same picture twice in one class and split, test images that look like a
  training image, tiny and gigantic images;
* note, if there is nothing to do: grayscale images.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.doctor.scan import ImageSummary

_TINY = 32  # pixels of the shorter side
_GIGANTIC = 50e6  # pixels; a training batch of these fills the memory of most machines
_SLACK = 1  # pixel that a box may overrun: sets disagree on whether the first pixel is 0 or 1
_UNEVEN = 10  # times as many training images in the largest class as in the smallest

# Two pictures look alike if their difference hashes are close and their thumbnails correlate. Measured
# on the first 50 classes of CUB-200-2011: of the 2.1 million pairs of a training and a test image, 38
# lie within 10 bits, and only one of them is the same photograph (Bronzed_Cowbird_0074 and _0025:
# correlation 1.000). The other 37 have a composition in common, such as a dark bird with spread wings over
# an empty sky or photographs in the same white frame with a shadow, and correlate by less than 0.89. Of
# copies made on purpose (half the size, JPEG quality 50, made square, 20 % brighter, 2 % cropped away)
# 97 % or more are within both bounds, of 5 % crops half, of 10 % crops next to none.
_NEAR_BITS = 10
_NEAR_CORRELATION = 0.97
# With fewer ones or zeros than this a hash only says that the picture is flat or a plain gradient, as
# any other sky. Real birds have 8 to 53 ones.
_FEW_BITS = 6
_BLOCK = 256  # test pictures compared with all training pictures at a time


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of trouble, and everything that has it."""

    level: str
    """'error', 'warning' or 'note'."""
    what: str
    """The trouble in the plural, such as 'missing images'."""
    examples: tuple[str, ...]
    """One text for each that has it, never empty."""
    cure: str
    files: tuple[str, ...] = ()
    """What to replace or remove, relative to the set's folder."""


def run_checks(listing: Listing, pictures: Iterable[ImageSummary]) -> dict[str, list[Finding]]:
    """Carries out all checks.

    Args:
      listing: the set.
      pictures: from `scan_images`.

    Returns:
      Name of each check -> what it found, errors first; nothing if all is well.
    """
    known = {picture.path: picture for picture in pictures}
    order = ('error', 'warning', 'note')
    return {
        name: sorted(check(listing, known), key=lambda finding: order.index(finding.level))
        for name, check in CHECKS.items()
    }


def files_to_fix(findings: Iterable[Finding]) -> list[str]:
    """The files of all errors, sorted, each once."""
    return sorted({file for finding in findings if finding.level == 'error' for file in finding.files})


def check_counts(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Both splits have images, and as many as were published."""
    del pictures
    counts = collections.Counter(record.split for record in listing.records)
    empty = tuple(split for split in SPLITS if not counts[split])
    if empty:
        yield Finding('error', 'splits without images', empty, _again(listing))
    if not listing.published:
        return
    published = listing.published['classes']
    classes = len({record.label for record in listing.records})
    if classes < published:
        yield Finding(
            'warning',
            'only part of the classes',
            (f'{classes} of {published} classes',),
            f'accuracies do not compare with published ones; for the whole set, get {listing.origin}',
        )
    seen = dict(counts, classes=classes)
    wrong = tuple(
        f'{seen.get(name, 0)} {name if name == "classes" else name + " images"}, {expected} were published'
        for name, expected in listing.published.items()
        if seen.get(name, 0) > expected or (seen.get(name, 0) < expected and classes >= published)
    )
    if wrong:
        yield Finding('error', 'wrong counts', wrong, _again(listing))


def check_classes(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Labels name classes, and every class is trained and tested, on about as many images as another."""
    del pictures
    names = listing.class_names
    if len(names) < 2:
        yield Finding('error', 'sets of a single class', tuple(names), 'there is nothing to tell apart: add a class')
    outside = [record for record in listing.records if not 0 <= record.label < len(names)]
    if outside:
        yield Finding(
            'error',
            'labels outside the classes',
            tuple(f'{record.path}: {record.label}, outside 0..{len(names) - 1}' for record in outside),
            _again(listing),
            tuple(record.path for record in outside),
        )
    count = {split: collections.Counter(r.label for r in listing.records if r.split == split) for split in SPLITS}
    trained, tested = ([count[split][label] for label in range(len(names))] for split in SPLITS)
    if not all(trained):
        yield Finding(
            'error',
            'classes without training images',
            tuple(name for name, images in zip(names, trained) if not images),
            'add images of these classes to train, or remove the classes',
        )
    if not all(tested):
        yield Finding(
            'warning',
            'classes without test images',
            tuple(name for name, images in zip(names, tested) if not images),
            'the accuracy will say nothing about these classes; add test images',
        )
    if trained and max(trained) > _UNEVEN * min(trained) > 0:
        few, many = int(np.argmin(trained)), int(np.argmax(trained))
        yield Finding(
            'warning',
            'very uneven classes',
            (f'{trained[few]} training images of {names[few]}, {trained[many]} of {names[many]}',),
            'rare classes are recognised worse; add images of them',
        )


def check_files(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Every image is there and can be decoded to its last row, and nothing lies among them that is not read."""
    missing = tuple(picture.path for picture in pictures.values() if picture.missing)
    if missing:
        yield Finding('error', 'missing images', missing, _again(listing), missing)
    broken = [picture for picture in pictures.values() if picture.problem and not picture.missing]
    if broken:
        yield Finding(
            'error',
            'unreadable images',
            tuple(f'{picture.path}: {picture.problem}' for picture in broken),
            _again(listing) if listing.origin else 'replace these files or remove them',
            tuple(picture.path for picture in broken),
        )
    if listing.skipped_files:
        cure = 'if they show something to learn, convert them to JPEG or PNG and put them into class folders'
        yield Finding('warning', 'files left out', listing.skipped_files, cure)


def check_annotations(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Boxes and visible key points lie in their images."""
    outside, files, overrun, stray = [], [], [], []
    for record in listing.records:
        picture = pictures[record.path]
        if picture.problem:
            continue
        size = f'{picture.width} x {picture.height}'
        if record.box is not None:
            y0, x0, y1, x1 = map(float, record.box)
            # Written so that a NaN counts as outside.
            inside = min(y1, picture.height) > max(y0, 0) and min(x1, picture.width) > max(x0, 0)
            over = max(-y0, -x0, y1 - picture.height, x1 - picture.width)
            if not inside:
                outside.append(f'{record.path} ({size}): x {x0:g} to {x1:g}, y {y0:g} to {y1:g}')
                files.append(record.path)
            elif over > _SLACK:
                overrun.append(f'{record.path}: by {over:g} pixels')
        if record.keypoints is not None:
            y, x, visible = record.keypoints.T
            there = (y >= 0) & (y <= picture.height) & (x >= 0) & (x <= picture.width)
            if (~there & (visible > 0)).any():
                stray.append(record.path)
    if outside:
        cure = 'annotations and images belong to different sets: ' + _again(listing)
        yield Finding('error', 'boxes outside their image', tuple(outside), cure, tuple(files))
    if overrun:
        yield Finding('warning', 'boxes that overrun their image', tuple(overrun), 'nothing to do for a few pixels')
    if stray:
        yield Finding('warning', 'images with key points outside', tuple(stray), 'nothing to do for a few images')


def check_duplicates(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """No picture is there twice, pixel by pixel."""
    groups = collections.defaultdict(list)
    for record in listing.records:
        if not pictures[record.path].problem:
            groups[pictures[record.path].digest].append(record)
    leaked, torn, harmless = [], [], []
    for group in groups.values():
        across_splits, across_classes = (len({getattr(r, part) for r in group}) > 1 for part in ('split', 'label'))
        leaked += [group] * across_splits
        torn += [group] * across_classes
        harmless += [group] * (len(group) > 1 and not across_splits and not across_classes)
    as_text = lambda groups: tuple(' = '.join(record.path for record in group) for group in groups)
    if leaked:
        yield Finding(
            'error',
            'pictures in both train and test',
            as_text(leaked),
            'the accuracy would count what was learnt by heart: remove the copy in train',
            # Without the training copy the test set stays what others report on.
            tuple(record.path for group in leaked for record in group if record.split == 'train'),
        )
    if torn:
        yield Finding(
            'error',
            'pictures under two classes',
            as_text(torn),
            'keep the copy whose class is right',
            tuple(record.path for group in torn for record in group),
        )
    if harmless:
        yield Finding('warning', 'pictures twice in one class', as_text(harmless), 'remove all copies but one')


def check_near_duplicates(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """No test image looks like a training image: the same photograph packed anew, or its neighbour."""
    train, test = (
        [
            pictures[path]
            for path in dict.fromkeys(record.path for record in listing.records if record.split == split)
            if not pictures[path].problem
        ]
        for split in SPLITS
    )
    pairs = near_duplicates(train, test)
    if pairs:
        yield Finding(
            'warning',
            'test images that look like a training image',
            tuple(f'{ours.path} ~ {theirs.path}' for ours, theirs in pairs),
            'look at the pairs; if they show one photograph, remove the copy in train',
        )


def near_duplicates(train: list[ImageSummary], test: list[ImageSummary]) -> list[tuple[ImageSummary, ImageSummary]]:
    """Pairs that look alike but are not the same pixel by pixel.

    Returns:
      (training picture, test picture): for each test picture the training picture most like it, if
      their hashes differ by at most 10 bits and their thumbnails correlate by at least 0.97.
    """
    train, test = ([picture for picture in side if _tells_apart(picture)] for side in (train, test))
    pairs = []
    if not train:
        return pairs
    hashes, digests, thumbnails = _as_arrays(train)
    for start in range(0, len(test), _BLOCK):
        block = test[start : start + _BLOCK]
        their_hashes, their_digests, their_thumbnails = _as_arrays(block)
        near = np.bitwise_count(their_hashes[:, None] ^ hashes) <= _NEAR_BITS
        near &= their_digests[:, None] != digests
        alike = np.where(near, their_thumbnails @ thumbnails.T, 0)
        for theirs, best, value in zip(block, alike.argmax(1), alike.max(1)):
            if value >= _NEAR_CORRELATION:
                pairs.append((train[best], theirs))
    return pairs


def check_sizes(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Images are large enough to show something, and small enough to decode every epoch."""
    del listing
    size = lambda picture: f'{picture.path}: {picture.width} x {picture.height}'
    readable = [picture for picture in pictures.values() if not picture.problem]
    tiny = tuple(size(picture) for picture in readable if min(picture.height, picture.width) < _TINY)
    if tiny:
        cure = f'under {_TINY} pixels there is little to recognise: look for larger originals'
        yield Finding('warning', 'tiny images', tiny, cure)
    gigantic = tuple(size(picture) for picture in readable if picture.height * picture.width > _GIGANTIC)
    if gigantic:
        cure = 'shrink these files: each epoch decodes them whole'
        yield Finding('warning', 'gigantic images', gigantic, cure)


def check_color(listing: Listing, pictures: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Which images are gray."""
    del listing
    gray = tuple(picture.path for picture in pictures.values() if picture.gray)
    if gray:
        yield Finding('note', 'grayscale images', gray, 'nothing to do: the gray is repeated over the three channels')


CHECKS = {
    'counts': check_counts,
    'classes': check_classes,
    'files': check_files,
    'annotations': check_annotations,
    'duplicates': check_duplicates,
    'near duplicates': check_near_duplicates,
    'sizes': check_sizes,
    'color': check_color,
}


def _tells_apart(picture: ImageSummary) -> bool:
    return _FEW_BITS <= picture.hash.bit_count() <= 64 - _FEW_BITS


def _as_arrays(pictures: list[ImageSummary]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes uint64 [n], digests shortened to uint64 [n], thumbnails float32 [n, 288].

    Thumbnails have mean 0 and length 1, so that a product is a correlation.
    """
    hashes = np.array([picture.hash for picture in pictures], np.uint64)
    digests = np.array([int.from_bytes(picture.digest[:8], 'big') for picture in pictures], np.uint64)
    thumbnails = np.stack([picture.thumbnail.ravel() for picture in pictures]).astype(np.float32)
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    return hashes, digests, thumbnails


def _again(listing: Listing) -> str:
    return f'extract it again: {listing.origin}' if listing.origin else f'put right what {listing.root} holds'
