"""Why Orbax could not load a checkpoint."""

import re
from pathlib import Path

from ssanet_jax.errors import UserError


def reason_of_failure(error: Exception, directory: Path, used_path: Path) -> str:
    """Describes a failed load by its first cause; raises if it is not the fault of the files.

    Args:
      error: what Orbax raised. It raises many types for a damaged file, and most of them mislead.
      directory: the folder of the checkpoints.
      used_path: the path by which Orbax knows it.

    Raises:
      MemoryError: the memory is too small; other types if it is that of a device.
      UserError: the files may not be read.
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for cause in chain:
        if isinstance(cause, MemoryError) or 'RESOURCE_EXHAUSTED' in str(cause):
            raise cause from None
    if any(isinstance(cause, PermissionError) or 'PERMISSION_DENIED' in str(cause) for cause in chain):
        raise UserError(f'no permission to read {directory}: ask for it, or read a copy') from error
    if type(chain[-1]) is not ValueError:
        return type(chain[-1]).__name__
    message = str(chain[-1]).replace(str(used_path), str(directory))
    # TensorStore's specifications are longer than a page.
    return re.sub(r'\s*\[tensorstore_spec.*', '', message, flags=re.DOTALL)
