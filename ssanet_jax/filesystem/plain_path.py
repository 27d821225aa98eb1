"""Paths for libraries that read some characters of a path as patterns, URLs or separators."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssanet_jax.errors import UserError

# Letters of any script, and punctuation without a meaning to Orbax, TensorStore, etils, array_record or `glob`.
_PLAIN = re.compile(r'(/[\w .,+=@~-]+)+')
_SCHEMES = ('gs', 's3', 'az', 'hf')  # etils reads /gs/... as gs://...


def is_plain(path: Path) -> bool:
    """Whether no library mistakes an absolute path for something else."""
    text = str(path)
    try:
        text.encode()  # the bytes of a name need not be UTF-8
    except UnicodeEncodeError:
        return False
    return bool(_PLAIN.fullmatch(text)) and path.parts[1] not in _SCHEMES


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to an existing folder that all libraries take as it is: the folder's own, or that of a temporary link.

    For example, Orbax takes `[1]` in a path for a pattern and then misses its own files, and TensorStore reads a
    backslash as a slash.

    Args:
      folder: the folder, absolute.

    Raises:
      UserError: its name needs a link, but no folder for temporary files can be written.
    """
    if is_plain(folder):
        yield folder
        return
    with contextlib.ExitStack() as stack:
        for parent in dict.fromkeys((os.environ.get('TMPDIR', '/tmp'), '/tmp', '/var/tmp', '/dev/shm')):
            if is_plain(Path(parent)):
                try:
                    link = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent))) / 'link'
                    link.symlink_to(folder)
                except OSError:
                    continue
                break
        else:
            raise UserError(
                f'the path {folder} has characters that checkpoints cannot have, and there is no folder for a link to '
                'it: rename it, or set TMPDIR to a folder that can be written'
            )
        yield link
