"""Reading the photos of a request. They stay in memory: nothing of an upload is written to disk."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ssanet_jax.serving.limits import Limits

_LONGEST_NAME = 200  # characters


class Upload(NamedTuple):
    """A file as it was uploaded."""

    data: bytes
    name: str | None  # as the client says; only ever repeated to it


class _InMemoryParser(MultiPartParser):
    spool_max_size = sys.maxsize  # the length of the body is limited
    ended = False

    def on_end(self) -> None:
        self.ended = True


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Reads the files of a form, or the body as a single file if it is no form.

    The limit of bytes holds while the body arrives: a longer one is refused before it is read whole.

    Args:
      request: a request whose body has not been read.
      limits: the limits.

    Raises:
      HTTPException: the body is empty, too long, too slow, no form that can be read, or has too many files.
      ClientDisconnect: the client has gone.
    """
    declared = request.headers.get('content-length', '')
    if declared.isdecimal() and int(declared) > limits.upload_bytes:
        raise _too_long(limits)
    is_form = request.headers.get('content-type', '').partition(';')[0].strip().lower() == 'multipart/form-data'
    try:
        async with asyncio.timeout(limits.upload_seconds), aclosing(_limited(request, limits)) as body:
            uploads = await (_read_form(request, body, limits) if is_form else _read_file(body))
    except TimeoutError as error:
        message = f'the upload took longer than {limits.upload_seconds:g} s: send fewer or smaller photos'
        raise HTTPException(408, message) from error
    if not uploads:
        raise HTTPException(400, 'there is no photo: send one as the body, or files as multipart/form-data')
    return uploads


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body in pieces, as long as it is not too long."""
    length = 0
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            length += len(piece)
            if length > limits.upload_bytes:
                raise _too_long(limits)
            yield piece


async def _read_file(body: AsyncGenerator[bytes, None]) -> list[Upload]:
    data = b''.join([piece async for piece in body])
    return [Upload(data, None)] if data else []


async def _read_form(request: Request, body: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    """The files of a form in their order, whatever the names of their fields are."""
    parser = _InMemoryParser(request.headers, body, max_files=limits.files, max_fields=limits.files)
    try:
        form = await parser.parse()
        if not parser.ended:  # the parser would drop the last file in silence
            await form.close()
            raise MultiPartException('it is cut off')
    except MultiPartException as error:
        reason = error.message.rstrip('.')
        message = f'the form cannot be read ({reason}): send at most {limits.files} files as multipart/form-data'
        raise HTTPException(400, message) from error
    uploads = []
    for _, value in form.multi_items():
        # A browser sends an empty file without a name where none was chosen.
        if isinstance(value, UploadFile) and (value.filename or value.size):
            uploads.append(Upload(await value.read(), (value.filename or '')[:_LONGEST_NAME] or None))
    await form.close()
    return uploads


def _too_long(limits: Limits) -> HTTPException:
    message = f'the upload has more than {limits.upload_bytes / 1e6:g} MB: send fewer or smaller photos'
    return HTTPException(413, message)
