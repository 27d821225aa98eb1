"""The table of the files that were left out, and the reasons."""

import csv
from collections.abc import Iterable
from pathlib import Path

from ssanet_jax.data.left_out import LeftOut
from ssanet_jax.prediction_files.formats import write_text

LEFT_OUT_FILE = 'left_out.csv'


def write_left_out(out: Path, left_out: Iterable[LeftOut]) -> None:
    """Writes `left_out.csv`, with a row for each file; without any, removes the one of an earlier prediction.

    Args:
      out: the folder.
      left_out: the files.

    Raises:
      UserError: the file cannot be written.
    """
    rows = ((item.path, item.reason) for item in left_out)
    first = next(rows, None)
    if first is None:
        (out / LEFT_OUT_FILE).unlink(missing_ok=True)
        return

    def write(file) -> None:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['file', 'reason'])
        writer.writerow(first)
        writer.writerows(rows)

    write_text(out / LEFT_OUT_FILE, write)
