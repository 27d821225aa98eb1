"""Checks of a listing before any image is read: training refuses what the doctor reports as errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ssanet_jax.data.left_out import first_names
from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Problem:
    """A reason why a network cannot be trained and tested on a listing."""

    title: str
    """The kind of problem in the plural, such as 'labels out of range'."""
    examples: tuple[str, ...]
    """One line per occurrence; not empty."""
    cure: str
    files: tuple[str, ...] = ()
    """Files to replace or move away, relative to the data set's root."""


def split_problems(listing: Listing) -> Iterator[Problem]:
    """Yields the splits without images."""
    if empty := tuple(split for split, count in listing.counts.items() if not count):
        yield Problem('splits without images', empty, extract_again(listing))


def class_problems(listing: Listing) -> Iterator[Problem]:
    """Yields what is wrong with the classes: a single one, labels out of range, none to train on."""
    names = listing.class_names
    if len(names) < 2:
        yield Problem(
            'data sets of a single class', tuple(names), 'there is nothing to classify: add a folder of another class'
        )
    outside = [record for record in listing.records if not 0 <= record.label < len(names)]
    if outside:
        yield Problem(
            'labels out of range',
            tuple(f'{record.path}: {record.label}, outside 0..{len(names) - 1}' for record in outside),
            extract_again(listing),
            tuple(record.path for record in outside),
        )
    trained = {record.label for record in listing.records if record.split == SPLITS[0]}
    untrained = tuple(name for label, name in enumerate(names) if label not in trained)
    if untrained:
        yield Problem(
            'classes without training images',
            untrained,
            'add images of these classes to train, or move the classes out of the data set',
        )


def require_trainable(listing: Listing) -> None:
    """Checks that a network can be trained and tested on a listing.

    Raises:
      UserError: it cannot; the message says what was understood.
    """
    for split in SPLITS:
        _require_images(listing, split)
    for problem in class_problems(listing):
        raise UserError(
            f'{listing.root} was understood as {listing.summary}; {problem.title}: {first_names(problem.examples)}; '
            f'{problem.cure}'
        )


def require_testable(listing: Listing) -> None:
    """Checks that a trained network can be evaluated on the test images of a listing.

    Raises:
      UserError: there are none.
    """
    _require_images(listing, 'test')


def _require_images(listing: Listing, split: str) -> None:
    if not listing.counts[split]:
        raise UserError(f'{listing.root} lists no {split} images ({listing.summary}): {extract_again(listing)}')


def extract_again(listing: Listing) -> str:
    """The cure for a folder that differs from what was published."""
    return (
        f'extract the data set again: {listing.origin}' if listing.origin else f'correct the contents of {listing.root}'
    )
