"""Reads files in child processes, and measures the memory and the time that each takes.

    python tests/attacks/measure.py < cases.json

Takes `{name: [reader, path]}` and prints `{name: {'outcome', 'message', 'work', 'megabytes'}}`. The modules are
imported once, and a process is forked per case. `work` is the processor time in units of a loop that is timed in the
same process, so that it does not depend on the machine; on a usual one, a unit is a tenth of a second.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np
from flax import nnx
from PIL import Image

from ssanet_jax.data import cars, csv_table, cub
from ssanet_jax.data.image_inputs import find_images, read_image
from ssanet_jax.data.images import decode_image, measure_bit_depth
from ssanet_jax.data.registry import read_listing
from ssanet_jax.data.source_files import SourceFiles
from ssanet_jax.doctor.scan import scan_image
from ssanet_jax.download import lists
from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.pretrained.load import load_pretrained
from ssanet_jax.runs.files import read_json, read_run
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.image_predictions import read_predictions
from ssanet_jax.runs.run import load_run

_WALL_SECONDS = 60
_CPU_SECONDS = 30
_BYTES = 4 * 2**30


_RESNET18 = nnx.eval_shape(lambda: build_backbone('resnet18', rngs=nnx.Rngs(0)))  # each case has a copy, by fork


def _weights(path: Path) -> None:
    load_pretrained(_RESNET18, 'resnet18', str(path))


def _threads(path: Path) -> None:
    """Sixteen readers of the same image at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    data = path.read_bytes()
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(lambda _: decode_image(data, path.name).shape[0], range(16)))
    assert len(set(sizes)) == 1


def _source_files(path: Path) -> None:
    if SourceFiles.read(path, 4) is None:
        raise UserError('none')


def _folder(path: Path) -> None:
    from ml_collections import ConfigDict

    print('\n'.join(read_listing(ConfigDict(dict(name='folder', dir=str(path)))).messages))


READERS = {
    'weights': _weights,
    'image': lambda path: decode_image(path.read_bytes(), path.name),
    'file': lambda path: read_image(path),
    'threads': _threads,
    'scan': lambda path: _problem(scan_image(path.parent, path.name).problem),
    'depth': lambda path: measure_bit_depth(path.read_bytes()),
    'find': lambda path: find_images([path]),
    'folder': _folder,
    'csv': lambda path: csv_table.read_table(path.parent, path),
    'cars': lambda path: cars.read_annotations(path, 'train', 196),
    'flowers': lambda path: list(lists.flowers(path.parent)),
    'cub': lambda path: cub.read_records(path.parent),
    'json': lambda path: read_json(path, 'restore it'),
    'run': lambda path: read_run(path.parent),
    'load_run': lambda path: load_run(path.parent),
    'history': read_history,
    'predictions': lambda path: read_predictions(path, 'restore it'),
    'source_files': _source_files,
}


def _problem(problem: str) -> None:
    if problem:
        raise UserError(problem)


def _time_unit() -> float:
    """Seconds of the processor for a fixed loop of Python."""
    start = time.process_time()
    sum(number * number for number in range(1_000_000))
    return time.process_time() - start


def _measure(reader: str, path: Path) -> dict[str, Any]:
    """Runs a reader in a child process."""
    with tempfile.TemporaryFile('w+') as out:
        pid = os.fork()
        if not pid:
            resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
            before = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (before + _BYTES, before + _BYTES))
            unit = _time_unit()
            base, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
            outcome, message = 'read', ''
            try:
                READERS[reader](path)
            except UserError as error:
                outcome, message = 'refused', str(error)
            except BaseException as error:
                outcome, message = type(error).__name__, str(error)[:300]
            spent = time.process_time() - start
            unit = (unit + _time_unit()) / 2  # other processes may have come or gone meanwhile
            work = spent / unit
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base.ru_maxrss
            json.dump(dict(outcome=outcome, message=message, work=work, megabytes=grown / 1024), out)
            out.flush()
            os._exit(0)
        deadline = time.monotonic() + _WALL_SECONDS
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
        if ended[0] == 0:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            return dict(outcome='hang', message='', work=float('inf'), megabytes=0)
        out.seek(0)
        return json.loads(out.read() or json.dumps(dict(outcome='died', message=str(ended[1]), work=-1, megabytes=-1)))


def main() -> None:
    # What the first use of a library allocates does not count.
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ('png', 'jpg', 'tif', 'gif', 'webp', 'bmp'):
            path = Path(folder) / f'a.{suffix}'
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
            decode_image(path.read_bytes(), path.name)
    import safetensors.numpy  # noqa: F401

    given = json.load(sys.stdin)
    done = {}
    for name, (reader, path) in given.items():
        done[name] = _measure(reader, Path(path))
        print(name, done[name], file=sys.stderr, flush=True)
    json.dump(done, sys.stdout)


if __name__ == '__main__':
    main()
