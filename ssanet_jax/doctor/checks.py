"""Checks of a data set's images against its annotations.

The checks are pure functions of a `Listing` and its scanned images (`scan.scan_images`), and yield `Finding`s:

* errors, if training would stop or its accuracy would be meaningless: missing or unreadable images, counts that differ
  from the published ones although all classes are there, splits without images, classes without training images,
  labels out of range, boxes outside their image, the same image in both splits or in two classes;
* warnings, if training works but the user should know: a subset of the published classes, skipped files, classes
  without test images or of very different sizes, boxes or key points that extend beyond their image, duplicates within
  a class and split, test images that look like a training image, tiny and huge images;
* notes, if nothing needs to be done: grayscale images, images of 16 bits per channel.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.data.listing_checks import Problem, class_problems, extract_again, split_problems
from ssanet_jax.doctor.near_duplicates import near_duplicates
from ssanet_jax.doctor.scan import ImageSummary

_TINY = 32  # shorter side, in pixels
_HUGE = 50e6  # pixels; a batch of such images fills the memory of most machines
_TOLERANCE = 1  # pixel beyond the image, since data sets count pixels from 0 or from 1
_DARK_BITS = 4  # fewer than the data set uses: at most a sixteenth of the brightness
_MAX_IMBALANCE = 10  # ratio of training images in the largest and the smallest class


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of problem and all its occurrences."""

    level: str
    """'error', 'warning' or 'note'."""
    title: str
    """The kind of problem in the plural, such as 'missing images'."""
    examples: tuple[str, ...]
    """One line per occurrence; not empty."""
    cure: str
    """How the user can fix it."""
    files: tuple[str, ...] = ()
    """Files to replace or move away, relative to the data set's root."""


def run_checks(listing: Listing, images: Iterable[ImageSummary]) -> dict[str, list[Finding]]:
    """Runs all checks.

    Args:
      listing: the data set.
      images: the result of `scan_images`.

    Returns:
      {name of a check: its findings, errors first}; a list is empty if the check passed.
    """
    image_of = {image.path: image for image in images}
    order = ('error', 'warning', 'note')
    return {
        name: sorted(check(listing, image_of), key=lambda finding: order.index(finding.level))
        for name, check in CHECKS.items()
    }


def files_to_fix(findings: Iterable[Finding]) -> list[str]:
    """The files of all errors, sorted and without duplicates."""
    return sorted({file for finding in findings if finding.level == 'error' for file in finding.files})


def check_counts(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Checks that both splits have as many images as were published."""
    del images
    counts = listing.counts
    yield from map(_error, split_problems(listing))
    if not listing.published:
        return
    published = listing.published['classes']
    classes = len({record.label for record in listing.records})
    if classes < published:
        yield Finding(
            'warning',
            'subset of the classes',
            (f'{classes} of {published} classes',),
            f'accuracies are not comparable with published ones; the whole data set is {listing.origin}',
        )
    actual = dict(counts, classes=classes)
    wrong = tuple(
        f'{actual.get(name, 0)} {name if name == "classes" else name + " images"}, {expected} were published'
        for name, expected in listing.published.items()
        if actual.get(name, 0) > expected or (actual.get(name, 0) < expected and classes >= published)
    )
    if wrong:
        yield Finding('error', 'wrong counts', wrong, extract_again(listing))


def check_classes(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Checks that labels are in range, and that every class has training and test images in similar numbers."""
    del images
    names = listing.class_names
    yield from map(_error, class_problems(listing))
    count = {split: collections.Counter(r.label for r in listing.records if r.split == split) for split in SPLITS}
    trained, tested = ([count[split][label] for label in range(len(names))] for split in SPLITS)
    if not all(tested):
        yield Finding(
            'warning',
            'classes without test images',
            tuple(name for name, images in zip(names, tested) if not images),
            'the accuracy does not cover these classes; add test images',
        )
    if trained and max(trained) > _MAX_IMBALANCE * min(trained) > 0:
        few, many = int(np.argmin(trained)), int(np.argmax(trained))
        yield Finding(
            'warning',
            'imbalanced classes',
            (f'{trained[few]} training images of {names[few]}, {trained[many]} of {names[many]}',),
            'accuracy is lower for rare classes; add images of them',
        )


def check_files(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Checks that every image exists and can be decoded, and reports files that are skipped."""
    missing = tuple(image.path for image in images.values() if image.missing)
    if missing:
        yield Finding('error', 'missing images', missing, extract_again(listing), missing)
    broken = [image for image in images.values() if image.problem and not image.missing]
    if broken:
        yield Finding(
            'error',
            'unreadable images',
            tuple(f'{image.path}: {image.problem}' for image in broken),
            extract_again(listing) if listing.origin else 'replace these files or move them out of the data set',
            tuple(image.path for image in broken),
        )
    if listing.left_out:
        skipped = tuple(f'{item.path}: {item.reason}' for item in listing.left_out)
        cure = 'to train on them, convert them to JPEG or PNG and move them into class folders'
        yield Finding('warning', 'skipped files', skipped, cure)
    if listing.notes:
        yield Finding('warning', 'notes on the folders', listing.notes, 'no action needed if that is what you mean')


def check_annotations(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Checks that boxes and visible key points lie inside their images."""
    outside, files, beyond, stray = [], [], [], []
    for record in listing.records:
        image = images[record.path]
        if image.problem:
            continue
        size = f'{image.width} x {image.height}'
        if record.box is not None:
            y0, x0, y1, x1 = map(float, record.box)
            # In this form, NaN counts as outside.
            inside = min(y1, image.height) > max(y0, 0) and min(x1, image.width) > max(x0, 0)
            excess = max(-y0, -x0, y1 - image.height, x1 - image.width)
            if not inside:
                outside.append(f'{record.path} ({size}): x {x0:g} to {x1:g}, y {y0:g} to {y1:g}')
                files.append(record.path)
            elif excess > _TOLERANCE:
                beyond.append(f'{record.path}: by {excess:g} pixels')
        if record.keypoints is not None:
            y, x, visible = record.keypoints.T
            inside = (y >= 0) & (y <= image.height) & (x >= 0) & (x <= image.width)
            if (~inside & (visible > 0)).any():
                stray.append(record.path)
    if outside:
        cure = 'annotations and images do not belong together: ' + extract_again(listing)
        yield Finding('error', 'boxes outside their image', tuple(outside), cure, tuple(files))
    if beyond:
        yield Finding('warning', 'boxes beyond their image', tuple(beyond), 'no action needed for a few pixels')
    if stray:
        yield Finding('warning', 'images with key points outside', tuple(stray), 'no action needed for a few images')


def check_duplicates(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Finds files with identical pixels."""
    groups = collections.defaultdict(list)
    for record in listing.records:
        if not images[record.path].problem:
            groups[images[record.path].digest].append(record)
    leaked, ambiguous, harmless = [], [], []
    for group in groups.values():
        across_splits, across_classes = (len({getattr(r, part) for r in group}) > 1 for part in ('split', 'label'))
        leaked += [group] * across_splits
        ambiguous += [group] * across_classes
        harmless += [group] * (len(group) > 1 and not across_splits and not across_classes)
    as_text = lambda groups: tuple(' = '.join(record.path for record in group) for group in groups)
    if leaked:
        yield Finding(
            'error',
            'images in both train and test',
            as_text(leaked),
            'the accuracy would count memorized images: move the copy in train out of the data set',
            # The test split stays the one that others report on.
            tuple(record.path for group in leaked for record in group if record.split == 'train'),
        )
    if ambiguous:
        yield Finding(
            'error',
            'images in two classes',
            as_text(ambiguous),
            'keep the copy whose class is right',
            tuple(record.path for group in ambiguous for record in group),
        )
    if harmless:
        yield Finding(
            'warning', 'duplicates within a class', as_text(harmless), 'keep one of the copies in the data set'
        )


def check_near_duplicates(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Finds test images that look like a training image: the same photograph, encoded again, or the next one."""
    train, test = (
        [
            images[path]
            for path in dict.fromkeys(record.path for record in listing.records if record.split == split)
            if not images[path].problem
        ]
        for split in SPLITS
    )
    pairs = near_duplicates(train, test)
    if pairs:
        yield Finding(
            'warning',
            'test images that look like a training image',
            tuple(f'{train_image.path} ~ {test_image.path}' for train_image, test_image in pairs),
            'compare the pairs; if they show the same photograph, move the copy in train out of the data set',
        )


def check_sizes(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Finds images that are too small to show details, or too large to decode in every epoch."""
    del listing
    size = lambda image: f'{image.path}: {image.width} x {image.height}'
    readable = [image for image in images.values() if not image.problem]
    tiny = tuple(size(image) for image in readable if min(image.height, image.width) < _TINY)
    if tiny:
        cure = f'below {_TINY} pixels there are few details: look for larger originals'
        yield Finding('warning', 'tiny images', tiny, cure)
    huge = tuple(size(image) for image in readable if image.height * image.width > _HUGE)
    if huge:
        cure = 'reduce their size: every epoch decodes them at full size'
        yield Finding('warning', 'huge images', huge, cure)


def check_color(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Finds grayscale images, and images whose color tags are ignored."""
    del listing
    gray = tuple(image.path for image in images.values() if image.gray)
    if gray:
        yield Finding('note', 'grayscale images', gray, 'no action needed: they are converted to RGB')
    if tagged := tuple(f'{image.path}: {image.color_tags}' for image in images.values() if image.color_tags):
        cure = 'only ICC profiles are applied: if these look too dark, pale or dull in pictures, convert them to sRGB'
        yield Finding('warning', 'images with color tags that are ignored', tagged, cure)


def check_depth(listing: Listing, images: Mapping[str, ImageSummary]) -> Iterator[Finding]:
    """Finds images of 16 bits per channel, and those among them that come out much darker than others."""
    del listing
    deep = [image for image in images.values() if image.bits]
    depth = max((image.bits for image in deep), default=0)
    uses = lambda images: tuple(f'{image.path}: uses {image.bits} bits' for image in images)
    if dark := [image for image in deep if depth - image.bits >= _DARK_BITS]:
        cure = f'all are read as {depth} bits: if these come from another camera, scale their values to {depth} bits'
        yield Finding('warning', 'images of 16 bits that are much darker than others', uses(dark), cure)
    if deep:
        cure = f'no action needed: the highest 8 of {depth} bits are kept (config.data.bit_depth)'
        yield Finding('note', 'images of 16 bits per channel', uses(deep), cure)


CHECKS = {
    'counts': check_counts,
    'classes': check_classes,
    'files': check_files,
    'annotations': check_annotations,
    'duplicates': check_duplicates,
    'near duplicates': check_near_duplicates,
    'sizes': check_sizes,
    'color': check_color,
    'depth': check_depth,
}


def _error(problem: Problem) -> Finding:
    return Finding('error', problem.title, problem.examples, problem.cure, problem.files)
