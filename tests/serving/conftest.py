"""A small network to serve, and clients in this process. Skips where a package of the extra `serve` is missing."""

import threading

import pytest
from color_network import write_color_network

from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.serving.limits import Limits


@pytest.fixture(scope='session')
def color_model(tmp_path_factory):
    for package in ('onnx', 'onnxruntime'):
        pytest.importorskip(package, reason=f'{package} is not installed')
    return write_color_network(tmp_path_factory.mktemp('model') / 'colors.onnx')


@pytest.fixture(scope='session')
def predictor(color_model):
    return load_model(color_model)


class HeldPredictor(OnnxPredictor):
    """A predictor that waits while `gate` is closed, and fails if it is told to."""

    def __init__(self, predictor: OnnxPredictor):
        self.__dict__.update(predictor.__dict__)
        self.gate, self.started = threading.Event(), threading.Event()
        self.gate.set()
        self.fails = False

    def outputs(self, images):
        self.started.set()
        assert self.gate.wait(10)
        if self.fails:
            raise RuntimeError('out of memory at /srv/models')
        return super().outputs(images)


@pytest.fixture
def held(predictor):
    return HeldPredictor(predictor)


@pytest.fixture(scope='session')
def make_app():
    """`create_app`."""
    for package in ('starlette', 'python_multipart'):
        pytest.importorskip(package, reason=f'{package} is not installed')
    from ssanet_jax.serving.app import create_app

    return create_app


@pytest.fixture(scope='session')
def make_client(make_app):
    """Arguments of `create_app` -> a context manager that gives a client of that server."""
    pytest.importorskip('httpx2', reason='httpx2 is not installed')
    from starlette.testclient import TestClient

    return lambda *arguments, **options: TestClient(make_app(*arguments, **options), raise_server_exceptions=False)


@pytest.fixture(scope='session')
def client(make_client, predictor):
    """A client of a server with tight limits."""
    with make_client(predictor, Limits(upload_bytes=200_000, pixels=100_000, files=3)) as opened:
        yield opened
