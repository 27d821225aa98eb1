"""A server on this machine that stands in for the mirrors of data sets, with the faults that real ones have."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror:
    """Serves `files`, {path: bytes}. `faults` is {path: what is wrong with it}; `requests` lists (path, range).

    A fault is an HTTP status; 'cut', which ends each connection in the middle of what is left; 'whole', which ignores
    ranges; 'shifted', which answers with another range; 'slow'; 'page', a web page; 'dropped', which closes every
    connection at once; or '/PATH', a redirect.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, int | str] = {}
        self.requests: list[tuple[str, str]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def url(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server.server_port}{path}'

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked = handler.path, handler.headers.get('Range', '')
        self.requests.append((path, asked))
        fault, content = self.faults.get(path), self.files.get(path, b'')
        if fault == 'dropped':
            handler.connection.close()
            return
        if isinstance(fault, str) and fault.startswith('/'):
            handler.send_response(302)
            handler.send_header('Location', self.url(fault))
            handler.end_headers()
            return
        if isinstance(fault, int) or path not in self.files:
            handler.send_error(fault if isinstance(fault, int) else 404)
            return
        start = int(asked.removeprefix('bytes=').rstrip('-')) if asked and fault != 'whole' else 0
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        first = start + 1 if fault == 'shifted' else start
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header('Content-Range', f'bytes {first}-{len(content) - 1}/{len(content)}')
        handler.send_header('Content-Type', 'text/html' if fault == 'page' else 'application/octet-stream')
        handler.send_header('Content-Length', str(len(content) - start))
        handler.end_headers()
        rest = content[first:]
        if fault == 'cut' and len(rest) > 1:
            rest = rest[: len(rest) // 2]
        step = max(len(rest) // 50, 1) if fault == 'slow' else max(len(rest), 1)
        try:
            for position in range(0, len(rest), step):
                handler.wfile.write(rest[position : position + step])
                handler.wfile.flush()
                if fault == 'slow':
                    time.sleep(0.05)
        except OSError:
            pass  # the client has gone
        handler.close_connection = True
