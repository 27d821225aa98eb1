"""Checkpoints as version 0.1.0 wrote them."""

import json
from pathlib import Path

from ssanet_jax.runs.checksums import CHECKSUMS_FILE, METADATA_FILE


def forget_checksums(checkpoint: Path) -> None:
    """Turns a checkpoint into one without checksums."""
    (checkpoint / CHECKSUMS_FILE).unlink()
    metadata = json.loads((checkpoint / METADATA_FILE).read_text())
    metadata['custom_metadata'] = {}
    (checkpoint / METADATA_FILE).write_text(json.dumps(metadata))
