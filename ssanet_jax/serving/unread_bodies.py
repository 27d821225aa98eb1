"""Answers to requests whose bodies have not been read, such as uploads that are too long."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 5.0  # how long the rest is dropped; as nginx does


class UnreadBodies:
    """Lets a client read an answer that comes before its upload has ended.

    If the server closed the connection at once, the client would see a broken connection in place of the answer. So the
    rest of the upload is dropped as it arrives, for a few seconds, and the connection is closed after that.

    Args:
      app: the application.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        headers = dict(scope['headers'])
        unread = b'transfer-encoding' in headers or headers.get(b'content-length', b'0') != b'0'

        async def noted_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message['type'] == 'http.request' and message.get('more_body', False)
            return message

        async def send_and_drop(message: Message) -> None:
            """Sends a message of the answer, and drops the rest of the upload before the last one."""
            if unread and message['type'] == 'http.response.start':
                message['headers'] = [*message.get('headers', ()), (b'connection', b'close')]
            if unread and message['type'] == 'http.response.body' and not message.get('more_body', False):
                await send({**message, 'more_body': True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SECONDS):
                        while unread:
                            await noted_receive()
                message = {'type': 'http.response.body'}
            await send(message)

        await self._app(scope, noted_receive, send_and_drop)
