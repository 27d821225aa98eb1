"""The routes of the server."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ssanet_jax import __version__
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.image_inputs import decode_file, network_input
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.image_predictor import NetworkInput
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.prediction_files import json_lines
from ssanet_jax.serving import metrics, openapi
from ssanet_jax.serving.admission import Admission, busy
from ssanet_jax.serving.batcher import Batcher, QueueFull
from ssanet_jax.serving.limits import Limits
from ssanet_jax.serving.unread_bodies import UnreadBodies
from ssanet_jax.serving.uploads import Upload, read_uploads
from ssanet_jax.web.isolation import HEADERS

_TOP = 5  # classes that are listed unless the client gives another number
_CLIENT_GONE = 499  # as in nginx's log
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"

_log = logging.getLogger(__name__)
_Value = TypeVar('_Value')


class Service:
    """Answers requests with a network. Use `create_app`.

    Args:
      predictor: the network.
      limits: what is accepted.
      batch_size: photos in a full batch.
      max_wait: seconds that a photo waits for others.
    """

    def __init__(self, predictor: OnnxPredictor, limits: Limits, batch_size: int, max_wait: float):
        self._predictor, self._limits = predictor, limits
        self._admission = Admission(limits.queue)
        self._readers = ThreadPoolExecutor(available_cpus(), 'reader')
        self._requests = metrics.Counter('ssanet_requests_total', 'Answers, by status.', ['status'])
        self._photos = metrics.Counter('ssanet_photos_total', 'Photos that were predicted.')
        self._seconds = metrics.Histogram(
            'ssanet_request_seconds',
            'Time from the arrival of a request to its predictions.',
            [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
        )
        self._batches = metrics.Histogram('ssanet_batch_photos', 'Photos in a batch.', [1, 2, 4, 8, 16, 32, 64])
        self._batcher = Batcher(
            self._compute,
            batch_size=batch_size,
            max_wait=max_wait,
            capacity=limits.queue,
            on_batch=self._batches.observe,
        )
        self._metrics = [
            self._requests,
            self._photos,
            self._seconds,
            self._batches,
            metrics.Gauge('ssanet_requests', 'Requests that wait for their answer.', lambda: self._admission.inside),
            metrics.Gauge('ssanet_waiting_photos', 'Photos that wait for a batch.', lambda: self._batcher.waiting),
        ]

    @contextlib.asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """The context in which requests are answered. The network runs once before, as the first time takes longest."""
        del app
        side = self._predictor.inputs.image_size
        gray = np.full((1, side, side, 3), 128, np.uint8)
        await asyncio.to_thread(self._predictor.outputs, gray)
        async with self._batcher:
            yield
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        """POST /predict: photos in, predictions out."""
        start = time.perf_counter()
        try:
            with self._admission():
                response = await self._predict(request)
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_GONE)  # for the count; nobody reads it
        except HTTPException as error:
            response = _error(error)
        self._requests.add(str(response.status_code))
        if response.status_code == 200:
            self._seconds.observe(time.perf_counter() - start)
        return response

    async def _predict(self, request: Request) -> Response:
        top = self._top(request)
        uploads = await read_uploads(request, self._limits)
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                predictions = await _unless_gone(request, self._answer(uploads))
        except (QueueFull, TimeoutError) as error:
            raise busy() from error
        self._photos.add(count=len(predictions))
        return JSONResponse({'predictions': [json_lines.to_line(prediction, top) for prediction in predictions]})

    def _top(self, request: Request) -> int:
        given = request.query_params.get('top', str(_TOP))
        if not (given.isascii() and given.isdecimal() and len(given) < 10 and int(given)):
            raise HTTPException(400, 'top is the number of classes to list: give 1 or more')
        return int(given)

    async def _answer(self, uploads: Sequence[Upload]) -> list[Prediction]:
        loop = asyncio.get_running_loop()
        inputs = await asyncio.gather(
            *(
                loop.run_in_executor(self._readers, self._read, number, upload)
                for number, upload in enumerate(uploads, 1)
            )
        )
        try:
            return await self._batcher.submit(inputs)
        except QueueFull:
            raise
        except Exception as error:
            _log.exception('the network failed')
            raise HTTPException(500, 'the network failed: tell whoever runs this server') from error

    def _read(self, number: int, upload: Upload) -> NetworkInput:
        """Decodes and resizes a photo, in a thread."""
        settings = self._predictor.inputs
        decode = partial(decode_file, upload.data, upload.name or '', settings.bit_depth, self._limits.pixels)
        try:
            pixels = decode()
        except UnreadableImage as error:
            raise HTTPException(
                422, f'photo {number} cannot be read ({error.reason.rstrip(".")}): send another file'
            ) from error
        return NetworkInput(network_input(pixels, settings), pixels.shape[:2], upload.name, decode)

    def _compute(self, batch: list[NetworkInput]) -> list[Prediction]:
        outputs = self._predictor.outputs(np.stack([given.image for given in batch]))
        return list(self._predictor.predictions(batch, outputs))

    async def health(self, request: Request) -> Response:
        """GET /health: 200 if the server can predict, else 503."""
        del request
        ready = self._batcher.running and not self._batcher.failed
        body = {
            'status': 'ready' if ready else 'not ready',
            'model': self._predictor.metadata.provenance.run,
            'digest': self._predictor.digest(),
            'version': __version__,
        }
        return JSONResponse(body, 200 if ready else 503)

    async def show_metrics(self, request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        del request
        return PlainTextResponse(metrics.render(self._metrics), media_type=metrics.CONTENT_TYPE)

    async def show_openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        del request
        return JSONResponse(openapi.describe(self._limits, len(self._predictor.class_names)))


def create_app(
    predictor: OnnxPredictor,
    limits: Limits | None = None,
    *,
    batch_size: int = 8,
    max_wait: float = 0.002,
    page: Path | None = None,
) -> Starlette:
    """The server as an ASGI application, for any ASGI server with a lifespan.

    Args:
      predictor: the network.
      limits: what is accepted.
      batch_size: photos in a full batch.
      max_wait: seconds that a photo waits for others.
      page: a folder of static files to show in a browser, in place of a form.
    """
    service = Service(predictor, limits or Limits(), batch_size, max_wait)
    return Starlette(
        routes=[
            Route('/predict', service.predict, methods=['POST']),
            Route('/health', service.health, methods=['GET']),
            Route('/metrics', service.show_metrics, methods=['GET']),
            Route('/openapi.json', service.show_openapi, methods=['GET']),
            Mount('/', _IsolatedFiles(directory=page, html=True)) if page else Route('/', _page, methods=['GET']),
        ],
        middleware=[Middleware(UnreadBodies)],
        exception_handlers={HTTPException: _handle_error},
        lifespan=service.running,
    )


class _IsolatedFiles(StaticFiles):
    """Static files with the headers that let the page use several threads."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


async def _unless_gone(request: Request, work: Awaitable[_Value]) -> _Value:
    """Awaits `work`, which is cancelled if the client closes its connection.

    Raises:
      ClientDisconnect: it has.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())['type'] != 'http.disconnect':
        pass


async def _page(request: Request) -> Response:
    """GET /: a form to upload photos."""
    del request
    page = resources.files('ssanet_jax.serving').joinpath('page.html').read_text(encoding='utf-8')
    return HTMLResponse(page, headers={'Content-Security-Policy': _PAGE_POLICY})


async def _handle_error(request: Request, error: Exception) -> Response:
    """The answer to a request that no route takes."""
    del request
    assert isinstance(error, HTTPException)
    return _error(error)


def _error(error: HTTPException) -> Response:
    return JSONResponse({'error': error.detail}, error.status_code, error.headers)
