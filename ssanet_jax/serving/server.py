"""Runs an application until it is told to stop."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from ssanet_jax.errors import UserError

_BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; connections wait until `serve` accepts them.

    Args:
      host: a name or an address.
      port: the port; 0 for any that is free.

    Raises:
      UserError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier start may linger
            opened.bind(address)
            opened.listen(_BACKLOG)
        except BaseException:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        message = f'cannot listen on {host} port {port} ({reason}): give another --host or --port'
        raise UserError(message) from error
    return opened


def url_of(opened: socket.socket) -> str:
    """The address of a server, for people."""
    host, port = opened.getsockname()[:2]
    return f'http://[{host}]:{port}' if opened.family == socket.AF_INET6 else f'http://{host}:{port}'


def serve(app: ASGIApp, opened: socket.socket, announce: Callable[[], None]) -> None:
    """Answers requests until SIGTERM or SIGINT. It then accepts no more, and returns when all accepted are answered.

    A second SIGINT ends it at once.

    Args:
      app: the application.
      opened: a socket that listens.
      announce: is called as soon as signals are handled.
    """
    config = uvicorn.Config(
        app,
        http='h11',  # whatever else is installed
        ws='none',
        lifespan='on',
        log_level='warning',
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    with _stopped_by_signals(server):
        announce()
        server.run([opened])


@contextlib.contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Tells a server to stop at a signal. Uvicorn handles signals only while it runs, and raises them again after."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
