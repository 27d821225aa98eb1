"""Serves an exported network by HTTP.

    python -m ssanet_jax.serving --model=birds.onnx
    curl --data-binary @wren.jpg http://127.0.0.1:8000/predict

The server listens on this machine only, unless `--host` says otherwise. SIGTERM and Ctrl-C stop it after all requests
that it has accepted are answered; the exit code is 0.
"""

import importlib.util
import sys

from absl import flags

from ssanet_jax import cli
from ssanet_jax.artifact.model_file import read_model_file
from ssanet_jax.artifact.onnx_file import OnnxFile
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.errors import UserError
from ssanet_jax.path_flags import define_path
from ssanet_jax.printable import printable

_PACKAGES = {'starlette': 'starlette', 'uvicorn': 'uvicorn', 'python_multipart': 'python-multipart'}  # by module

_MODEL = define_path('model', None, 'ONNX file that ssanet export wrote, or hub:OWNER/NAME[@REVISION].', required=True)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen on; 0.0.0.0 for all of this machine.')
_PORT = flags.DEFINE_integer('port', 8000, 'Port to listen on; 0 for any that is free.', 0, 65535)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 8, 'Photos that the network computes at once, at most.', 1)
_MAX_WAIT_MS = flags.DEFINE_float('max_wait_ms', 2, 'Milliseconds that a photo waits for others.', 0, 1000)
_QUEUE = flags.DEFINE_integer('queue', 128, 'Requests at a time; more are answered with 503.', 1)
_MAX_UPLOAD_MB = flags.DEFINE_float('max_upload_mb', 20, 'Megabytes of a request.', 0.001)
_MAX_PIXELS = flags.DEFINE_integer('max_pixels', 50_000_000, 'Pixels of a photo.', 1)
_PAGE = define_path('page', None, 'Folder that ssanet export --format=web wrote, to show in place of a plain form.')
for _name in ('batch_size', 'max_wait_ms', 'max_upload_mb', 'max_pixels'):
    flags.DEFINE_alias(_name.replace('_', '-'), _name)


def main() -> None:
    """Serves until it is stopped."""
    missing = [package for module, package in _PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: in a checkout, pip install -e '.[serve]'")
    from ssanet_jax.serving.app import create_app
    from ssanet_jax.serving.limits import Limits
    from ssanet_jax.serving.server import open_socket, serve, url_of

    page = _PAGE.value
    if page is not None and not (page / 'index.html').is_file():
        raise UserError(f'--page={page} has no index.html: give a folder that ssanet export --format=web wrote')
    file = read_model_file(_MODEL.value)
    if not isinstance(file, OnnxFile):
        raise UserError(f'serve needs an ONNX file, which {_MODEL.value} is not: ssanet export writes one')
    predictor = OnnxPredictor(file, str(_MODEL.value))
    limits = Limits(
        upload_bytes=int(_MAX_UPLOAD_MB.value * 1e6),
        pixels=_MAX_PIXELS.value,
        files=min(Limits.files, _QUEUE.value),
        queue=_QUEUE.value,
    )
    max_wait = _MAX_WAIT_MS.value / 1000
    app = create_app(predictor, limits, batch_size=_BATCH_SIZE.value, max_wait=max_wait, page=page)
    with open_socket(_HOST.value, _PORT.value) as opened:
        line = f'serving {_MODEL.value} ({len(predictor.class_names)} classes) on {url_of(opened)}: Ctrl-C stops it'
        serve(app, opened, announce=lambda: print(printable(line), flush=True))
    print('stopped: all accepted requests are answered', file=sys.stderr)


if __name__ == '__main__':
    cli.run(main)
