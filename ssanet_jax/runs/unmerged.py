"""Checkpoints of version 0.1.0 in folders with brackets in their names, which it saved but could not read."""

from pathlib import Path
from typing import Any

import tensorstore

_MANIFEST = 'manifest.ocdbt'


def merge_unmerged(checkpoint: Path) -> None:
    """Finishes a checkpoint whose arrays were all written, but never merged into one database.

    Each process writes its arrays into a folder of its own, and Orbax then merges them. It looked for these folders by
    a pattern, which `run [1]` does not match. A complete checkpoint is left unchanged.

    Args:
      checkpoint: the folder of one checkpoint, with a plain path.

    Raises:
      Exception: the arrays cannot be read, or the folder cannot be written. TensorStore raises several types.
    """
    for item in checkpoint.iterdir():
        parts = sorted(part.parent for part in item.glob(f'ocdbt.process_*/{_MANIFEST}'))
        if not parts or (item / _MANIFEST).exists():
            continue
        transaction: Any = tensorstore.Transaction(atomic=True)
        context = tensorstore.Context()  # common to all, or they could not refer to each other's files
        merged = _open(item, context).with_transaction(transaction)
        for part in parts:
            _open(part, context).experimental_copy_range_to(merged).result()
        transaction.commit_async().result()


def _open(database: Path, context: tensorstore.Context) -> Any:
    spec: Any = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{database}/'}}
    return tensorstore.KvStore.open(spec, context=context).result()
