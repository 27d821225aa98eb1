"""Chromium without a window, driven by the DevTools protocol over a pipe."""

import contextlib
import functools
import http.server
import itertools
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome')


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def serve(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder, with headers; yields its address and the list of requested paths, which grows."""
    requested: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            requested.append(self.path)

        def end_headers(self) -> None:
            self.send_header('Access-Control-Allow-Origin', '*')  # so that only the page's policy stops requests
            for header in (headers or {}).items():
                self.send_header(*header)
            super().end_headers()

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', requested
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Browser:
    """A browser with one page.

    Args:
      profile: an empty folder for its files.
    """

    def __init__(self, profile: Path):
        program = find_chromium()
        assert program
        from_browser, to_us = os.pipe()
        to_browser, from_us = os.pipe()

        arguments = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe', 'about:blank']
        arguments += [f'--user-data-dir={profile}', '--no-first-run', '--disable-background-networking']
        # The protocol uses the descriptors 3 (in) and 4 (out).
        redirect = f'exec "$@" 3<&{to_browser} 4>&{to_us}'
        self._process = subprocess.Popen(
            ['bash', '-c', redirect, 'bash', program, *arguments],
            pass_fds=(to_browser, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_us)
        os.close(to_browser)
        self._in, self._out = from_us, from_browser
        self._ids, self._buffer = itertools.count(1), b''
        self.events: list[dict[str, Any]] = []
        targets = self._call('Target.getTargets', {})['targetInfos']
        target = next(one['targetId'] for one in targets if one['type'] == 'page')
        attached = self._call('Target.attachToTarget', {'targetId': target, 'flatten': True})
        self._page = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'DOM'):
            self.call(f'{domain}.enable')

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol on the page, or on another target."""
        return self._call(method, parameters, session or self._page)

    def evaluate(self, expression: str, session: str | None = None) -> Any:
        """The value of an expression, or of the promise that it gives."""
        answer = self.call('Runtime.evaluate', session, expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f'{expression} never became true: {self.evaluate("document.body.innerText")}'
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        self.call('Page.navigate', url=url)
        self.wait_for(f'document.readyState === "complete" && location.href.startsWith({json.dumps(url)})')

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Gives files to an input, as a user does in the dialog."""
        document = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=document, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', nodeId=node, files=[str(file.absolute()) for file in files])

    def complaints(self) -> list[str]:
        """What the browser has logged as errors."""
        logged = [event['params']['entry'] for event in self.events if event['method'] == 'Log.entryAdded']
        thrown = [str(event['params']) for event in self.events if event['method'] == 'Runtime.exceptionThrown']
        return [f'{entry["text"]} {entry.get("url", "")}' for entry in logged if entry['level'] == 'error'] + thrown

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._send({'id': next(self._ids), 'method': 'Browser.close'})
        os.close(self._in)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        number = next(self._ids)
        self._send({'id': number, 'method': method, 'params': parameters} | ({'sessionId': session} if session else {}))
        while True:
            message = self._receive()
            if message.get('id') == number:
                assert 'error' not in message, (method, message['error'])
                return message['result']
            self.events.append(message)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b'\0'
        while data:
            data = data[os.write(self._in, data) :]

    def _receive(self) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            assert select.select([self._out], [], [], 60)[0], 'the browser does not answer'
            data = os.read(self._out, 1 << 20)
            assert data, 'the browser has ended'
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(line)
