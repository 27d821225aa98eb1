"""The bound of the requests that are handled at a time."""

import contextlib
from collections.abc import Iterator

from starlette.exceptions import HTTPException


def busy() -> HTTPException:
    """The answer when there is too much to do."""
    return HTTPException(503, 'the server is busy: try again in a second', {'Retry-After': '1'})


class Admission:
    """Lets a bounded number of requests in at a time, before their bodies are read, which bounds the memory.

    Args:
      limit: the number.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self.inside = 0
        """The number of requests that are inside."""

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A context for a request.

        Raises:
          HTTPException: there are too many; its status is 503.
        """
        if self.inside >= self._limit:
            raise busy()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
