"""Reads the examples of a copy of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.data.dataset import Source
from ssanet_jax.data.images import decode_image
from ssanet_jax.errors import UnreadableImage, UserError


class RecordSource:
    """One split of a copy, as a `Source`.

    Args:
      copy: the folder of the records, for error messages.
      records: the records.
      labels: int32 [n], their labels.
      bit_depth: see `decode_image`.
    """

    def __init__(self, copy: Path, records: Any, labels: np.ndarray, bit_depth: int):
        self._copy = copy
        self._records = records
        self._bit_depth = bit_depth
        self.labels = labels

    def __len__(self) -> int:
        return len(self._records)

    def file_name(self, index: int) -> str:
        """See `dataset.file_name`."""
        return self._record(index)['file']

    def _record(self, index: int) -> dict[str, Any]:
        """An example whose image is not decoded."""
        try:
            example = dict(self._records[index])
            example['file'] = example['file'].decode(errors='surrogateescape')
            example['label'] = np.int32(example['label'])
        except Exception as error:  # TFDS and array_record raise many types for damaged files
            raise self._damage(f'record {index} of {len(self)}') from error
        return example

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._record(index)
        if example['label'] != self.labels[index]:
            raise self._damage(f'label of record {index}')
        image = decode_image(example['image'], example['file'], self._bit_depth)
        example['image'] = image[: max(image.shape[0] - example.pop('cut_bottom'), 0)]
        if not example['image'].size:
            raise UnreadableImage(
                f'{example["file"]} is empty after cropping its bottom rows: move it out of the data set'
            )
        if 'box' in example:  # a few published boxes extend beyond their image
            height, width = example['image'].shape[:2]
            example['box'] = example['box'].clip(0, np.array([height, width, height, width], np.float32))
        return example

    def _damage(self, place: str) -> UserError:
        return UserError(
            f'the copy {self._copy} of the data set is damaged ({place}): rename that folder and run the same command '
            'again, which writes it again'
        )


def require_readable(source: Source, images: str) -> None:
    """Raises `UserError` if no image of a source can be read."""
    problem: UnreadableImage | None = None
    for index in range(len(source)):
        try:
            source[index]
            return
        except UnreadableImage as error:
            problem = problem or error
    if problem:
        raise UserError(f'none of the {len(source)} {images} can be read, such as: {problem}') from problem
