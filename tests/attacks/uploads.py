"""Sends uploads that are too long, no photos, or bombs to a server, and measures its memory.

    python tests/attacks/uploads.py --model=birds.onnx

Prints the status of each answer, its sentence, the time until it came, and how much the largest memory of the server
grew. Ends with 1 if the server answers anything else than a refusal, or nothing, or does not serve photos any more.
"""

import argparse
import http.client
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import hostile_files
import numpy as np
from PIL import Image

REFUSALS = (400, 408, 413, 422, 503)
PIECE = bytes(1 << 20)
LONG = 500  # MB
HEAD = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n'


def pieces(count: int, head: bytes = b'') -> Iterator[bytes]:
    """A body of `count` MiB, never in memory as a whole."""
    yield head
    for _ in range(count):
        yield PIECE


def send(port: int, body: bytes | Callable[[], Iterator[bytes]], headers: dict[str, str]) -> tuple[int, str]:
    """The status and the body of the answer to a POST; a server may answer and close before it has read all."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
    connection.connect()
    try:
        content = body if isinstance(body, bytes) else body()
        connection.request('POST', '/predict', content, headers, encode_chunked='Content-Length' not in headers)
    except OSError:  # it has stopped reading
        pass
    try:
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, f'{type(error).__name__}: {error}'
    finally:
        connection.close()


def cases() -> dict[str, tuple[bytes | Callable[[], Iterator[bytes]], dict[str, str]]]:
    """Bodies and headers by name."""
    form = {'Content-Type': 'multipart/form-data; boundary=x'}
    chunked = {'Transfer-Encoding': 'chunked'}
    length = {'Content-Length': str(LONG << 20)}
    found = {
        f'{LONG} MB, of a declared length': (lambda: pieces(LONG), length),
        f'{LONG} MB, in pieces': (lambda: pieces(LONG), chunked),
        f'{LONG} MB, a form in pieces': (lambda: pieces(LONG, HEAD), chunked | form),
        'a PDF': (b'%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n' + bytes(1 << 20), {}),
        'a PDF in a form': (HEAD + b'%PDF-1.7\n' + bytes(1000) + b'\r\n--x--\r\n', form),
    }
    return found | {f'image: {name}': (content, {}) for name, content in hostile_files.images().items()}


def memory(process: subprocess.Popen) -> float:
    """The largest resident memory of a process so far, MB."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1e3


def main(model: str) -> int:
    """Sends everything, and returns the exit code."""
    command = [sys.executable, '-m', 'ssanet_jax', 'serve', f'--model={model}', '--port=0']
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        port = int(re.search(r':(\d+):', line.replace('/', ''))[1])
        photo = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)).save(photo, 'JPEG')
        ask = lambda: send(port, photo.getvalue(), {})[0]
        with ThreadPoolExecutor(8) as clients:
            assert set(clients.map(lambda _: ask(), range(32))) == {200}
            start = memory(process)
            print(f'after 32 photos: {start:.0f} MB')
            bad = 0
            for name, (body, headers) in cases().items():
                before, began = memory(process), time.perf_counter()
                status, sentence = send(port, body, headers)
                took = time.perf_counter() - began
                fine = (*REFUSALS, 200) if name.startswith('image') else REFUSALS  # some images are within the limits
                bad += status not in fine
                print(f'{name}: {status} in {took:.2f} s, {memory(process) - before:+.0f} MB: {sentence[:150]}')
            with ThreadPoolExecutor(64) as many:
                upload = lambda _: send(port, lambda: pieces(LONG), {'Transfer-Encoding': 'chunked'})[0]
                statuses = list(many.map(upload, range(64)))
            bad += not set(statuses) <= set(REFUSALS)
            counts = ', '.join(f'{statuses.count(status)} x {status}' for status in sorted(set(statuses)))
            print(f'64 clients with {LONG} MB in pieces at once: {counts}; {memory(process) - start:.0f} MB in all')
        alive = ask() == 200
        print(f'photos are {"still" if alive else "NO LONGER"} served; {bad} wrong answers')
        return int(bad > 0 or not alive)
    finally:
        process.terminate()
        process.wait(30)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True)
    sys.exit(main(parser.parse_args().model))
