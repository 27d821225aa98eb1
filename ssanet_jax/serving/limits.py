"""What a server accepts."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one request may take, and the most requests at a time."""

    upload_bytes: int = 20_000_000  # of the body of a request
    pixels: int = 50_000_000  # of a photo, as its header claims
    files: int = 16  # photos in a request
    upload_seconds: float = 30.0  # until the body has arrived
    answer_seconds: float = 60.0  # from then on
    queue: int = 128  # requests, and photos that wait for the network
