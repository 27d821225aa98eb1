"""JSON lines: one object per image."""

import json
from collections.abc import Iterable
from typing import TextIO

from ssanet_jax.prediction_files.journal import Record


def write(file: TextIO, records: Iterable[Record], network: str) -> None:
    """Writes a line for each image that could be read."""
    del network
    for record in records:
        if record.line is not None:
            file.write(json.dumps(record.line) + '\n')
