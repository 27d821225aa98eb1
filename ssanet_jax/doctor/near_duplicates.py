"""Search for test images that look like a training image without being identical to it.

Two images look alike if their difference hashes are close and their thumbnails correlate. The thresholds were measured
on the first 50 classes of CUB-200-2011: of the 2.1 million pairs of a training and a test image, 38 lie within 10 bits,
and only one of them shows the same photograph (Bronzed_Cowbird_0074 and _0025: correlation 1.000). The other 37 share a
composition, such as a dark bird with spread wings in front of an empty sky, or photographs in the same white frame with
a shadow, and correlate by less than 0.89. Of copies made for the measurement (half the size, JPEG quality 50, made
square, 20 % brighter, 2 % cropped), at least 97 % are within both thresholds; of 5 % crops half are, of 10 % crops
hardly any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssanet_jax.doctor.scan import ImageSummary

_MAX_DISTANCE = 10  # bits in which two hashes may differ
_MIN_CORRELATION = 0.97  # of two thumbnails
# A hash with fewer ones or zeros than this only says that the image is flat or a plain gradient, such as any sky.
# Real birds have 8 to 53 ones.
_MIN_BITS = 6
_BLOCK = 256  # test images compared with all training images at a time


def near_duplicates(
    train: Sequence[ImageSummary], test: Sequence[ImageSummary]
) -> list[tuple[ImageSummary, ImageSummary]]:
    """Finds pairs of images that look alike but differ in some pixels.

    Args:
      train, test: readable images.

    Returns:
      (training image, test image): for each test image the most similar training image, if their hashes differ by at
      most 10 bits and their thumbnails correlate by at least 0.97.
    """
    train, test = ([image for image in images if _is_distinctive(image)] for images in (train, test))
    pairs: list[tuple[ImageSummary, ImageSummary]] = []
    if not train:
        return pairs
    hashes, digests, thumbnails = _as_arrays(train)
    for start in range(0, len(test), _BLOCK):
        block = test[start : start + _BLOCK]
        test_hashes, test_digests, test_thumbnails = _as_arrays(block)
        near = np.bitwise_count(test_hashes[:, None] ^ hashes) <= _MAX_DISTANCE  # [block, train]
        near &= test_digests[:, None] != digests
        correlation = np.where(near, test_thumbnails @ thumbnails.T, 0)
        for image, best, value in zip(block, correlation.argmax(1), correlation.max(1)):
            if value >= _MIN_CORRELATION:
                pairs.append((train[best], image))
    return pairs


def _is_distinctive(image: ImageSummary) -> bool:
    return _MIN_BITS <= image.hash.bit_count() <= 64 - _MIN_BITS


def _as_arrays(images: Sequence[ImageSummary]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes uint64 [n], digests truncated to uint64 [n], thumbnails float32 [n, 288].

    Thumbnails have mean 0 and norm 1, so that inner products are correlations.
    """
    hashes = np.array([image.hash for image in images], np.uint64)
    digests = np.array([int.from_bytes(image.digest[:8], 'big') for image in images], np.uint64)
    thumbnails = np.stack([image.thumbnail.ravel() for image in images]).astype(np.float32)
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    return hashes, digests, thumbnails
