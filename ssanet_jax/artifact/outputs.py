"""The outputs of an exported network (`docs/export.md`)."""

from typing import NamedTuple

import numpy as np

INPUT = 'images'


class Output(NamedTuple):
    """An output of the file."""

    dtype: type[np.generic]
    dims: str  # N images, C classes, K parts, H heads, D features, 4 sides
    required: bool = False


OUTPUTS = {
    'logits': Output(np.float32, 'NC', True),
    'probabilities': Output(np.float32, 'NC', True),
    'novelty': Output(np.float32, 'N'),
    'image_logits': Output(np.float32, 'NC', True),
    'bias_logits': Output(np.float32, 'NC', True),
    'part_logits': Output(np.float32, 'NHKC'),
    'boxes': Output(np.float32, 'NK4'),
    'proposals': Output(np.float32, 'NK4'),
    'present': Output(np.bool_, 'NK'),
    'scales': Output(np.float32, 'NK'),
    'orientations': Output(np.int32, 'NK'),
    'angle': Output(np.float32, 'N'),
    'embedding': Output(np.float32, 'ND', True),
    'part_embeddings': Output(np.float32, 'NKD'),
}
