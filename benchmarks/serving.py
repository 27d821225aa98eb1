"""Requests per second and latency of the server, beside onnxruntime alone on the same photos, in one run.

    python -m benchmarks.serving --model=birds.onnx photos/

Each request uploads one photo over loopback. The clients are threads of this program, with a connection each that stays
open, so they share the cores with the server. 'onnxruntime' computes photos that are already prepared, one by one and
in batches; 'predict' also reads and resizes them, as the server does. Latencies are those of a call.
"""

import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.data.image_inputs import find_images, network_input, read_image
from ssanet_jax.errors import UserError
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table

CLIENTS = (1, 8, 64)
_BATCH = 8
_MOST_PHOTOS = 200  # in memory


class Timing(NamedTuple):
    """The figures of a row."""

    per_second: float  # photos
    latencies: np.ndarray  # of the calls, seconds


def measure(call: Callable[[int], int], seconds: float, clients: int) -> Timing:
    """Calls a function again and again from several threads.

    Args:
      call: takes the number of the call, and returns how many photos it has done.
      seconds: no call starts after this time.
      clients: the number of threads.
    """
    numbers, lock = itertools.count(), threading.Lock()
    latencies, photos = [], 0
    start = time.perf_counter()

    def work(client: int) -> None:
        nonlocal photos
        del client
        while (begin := time.perf_counter()) - start < seconds:
            with lock:
                number = next(numbers)
            done = call(number)
            with lock:
                latencies.append(time.perf_counter() - begin)
                photos += done

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return Timing(photos / (time.perf_counter() - start), np.array(latencies))


@contextmanager
def running_server(model: Path) -> Iterator[int]:
    """Starts the server; gives its port. It must end with exit code 0."""
    command = [sys.executable, '-m', 'ssanet_jax.serving', f'--model={model}', '--port=0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r':(\d+): ', process.stdout.readline())
            if not found:
                raise UserError('the server does not start: see above')
            yield int(found[1])
        finally:
            process.terminate()
        if process.wait():
            raise UserError(f'the server ended with exit code {process.returncode}')


def uploads(port: int, photos: list[bytes], expected: list[str]) -> Callable[[int], int]:
    """A call that uploads a photo, over the connection of its thread, and checks the class."""
    local = threading.local()

    def call(number: int) -> int:
        if not hasattr(local, 'connection'):
            local.connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
        index = number % len(photos)
        local.connection.request('POST', '/predict?top=1', photos[index])
        answer = local.connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200 or f'"class":{expected[index]}' not in body:
            raise RuntimeError(f'status {answer.status}: {body[:200]}')
        return 1

    return call


def alone(predictor: OnnxPredictor, inputs: np.ndarray, size: int) -> Callable[[int], int]:
    """A call that computes a batch of prepared inputs."""

    def call(number: int) -> int:
        chosen = np.arange(number * size, (number + 1) * size) % len(inputs)
        predictor.run(inputs[chosen])
        return size

    return call


def main(given: list[str]) -> None:
    """Prints the table."""
    seconds = flags.FLAGS.seconds
    files = find_images(given).files[:_MOST_PHOTOS]
    predictor = load_model(flags.FLAGS.model)
    pixels = (read_image(file, predictor.inputs.bit_depth) for file in files)
    inputs = np.stack([network_input(image, predictor.inputs) for image in pixels])
    expected = [json.dumps(prediction.label, ensure_ascii=False) for prediction in predictor.predict(files)]
    photos = [file.read_bytes() for file in files]

    def predict(number: int) -> int:
        return sum(1 for _ in predictor.predict(files[number % len(files)], batch_size=1))

    rows: list[tuple[str, Timing]] = []
    for size in (1, _BATCH):
        call = alone(predictor, inputs, size)
        call(0)
        rows.append((f'onnxruntime, batches of {size}', measure(call, seconds, 1)))
    rows.append(('predict, one by one', measure(predict, seconds, 1)))
    with running_server(flags.FLAGS.model) as port:
        call = uploads(port, photos, expected)
        measure(call, 1, 1)
        for clients in CLIENTS:
            rows.append((f'server, clients: {clients}', measure(call, seconds, clients)))
    table = Table('', 'photos/s', 'p50 ms', 'p99 ms', 'calls', title=f'{len(files)} photos, {flags.FLAGS.model}')
    for name, timing in rows:
        p50, p99 = 1000 * np.quantile(timing.latencies, (0.5, 0.99))
        table.add_row(name, f'{timing.per_second:.1f}', f'{p50:.0f}', f'{p99:.0f}', str(len(timing.latencies)))
    print_table(table, PlainConsole())


if __name__ == '__main__':
    define_path('model', None, 'File that ssanet export wrote.', required=True)
    flags.DEFINE_float('seconds', 10, 'Seconds per row.', 0.1)
    cli.run(main, accepts_arguments=True)
