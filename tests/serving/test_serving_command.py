"""The command `ssanet serve`, in processes of its own."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from color_network import CLASS_NAMES, COLORS, photo
from commands import ROOT, check_user_error, run_each

from ssanet_jax.artifact.model_file import load_model
from ssanet_jax.artifact.stablehlo_file import pack

CLIENTS = 40
SECONDS = 60


@pytest.fixture
def start_server(color_model, make_app):
    """Flags -> (process, port) of a server that answers."""
    processes = []

    def start(*flags):
        command = [sys.executable, '-m', 'ssanet_jax', 'serve', f'--model={color_model}', '--port=0', *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        line = process.stdout.readline()
        found = re.search(r'http://127\.0\.0\.1:(\d+)', line)
        assert found, line + process.stderr.read()
        return process, int(found[1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=SECONDS)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def arrived(port) -> int:
    """The number of uploads that the server has begun to read."""
    _, page = request(port, 'GET', '/metrics')
    return sum(int(value) for value in re.findall(r'^ssanet_requests(?:_total\{.*\})? (\d+)$', page, re.MULTILINE))


def test_forty_clients_get_their_own_answers_though_the_server_is_told_to_stop(start_server):
    # A batch of 64 never fills up, so that the requests wait for a second when SIGTERM comes.
    process, port = start_server('--batch-size=64', '--max-wait-ms=1000')
    assert request(port, 'GET', '/health')[0] == 200
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [pool.submit(request, port, 'POST', '/predict', photo(color)) for color in COLORS[:CLIENTS]]
        end = time.monotonic() + SECONDS
        while arrived(port) < CLIENTS:
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        results = [answer.result() for answer in answers]
    assert [status for status, _ in results] == [200] * CLIENTS
    classes = [json.loads(body)['predictions'][0]['class'] for _, body in results]
    assert classes == list(CLASS_NAMES[:CLIENTS])
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert stderr == 'stopped: all accepted requests are answered\n'
    with pytest.raises(ConnectionRefusedError):
        request(port, 'GET', '/health')


def test_ctrl_c_stops_an_idle_server(start_server):
    process, _ = start_server()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def test_what_cannot_be_served_is_one_line(color_model, make_app, tmp_path):
    damaged = tmp_path / 'damaged.onnx'
    data = bytearray(color_model.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    other = tmp_path / 'other.txt'
    other.write_text('some text')
    stablehlo = tmp_path / 'colors.stablehlo'
    stablehlo.write_bytes(pack(b'', load_model(color_model).metadata).data)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_each(
            'ssanet_jax.serving',
            {
                'missing': [f'--model={tmp_path}/none.onnx'],
                'damaged': [f'--model={damaged}'],
                'other': [f'--model={other}'],
                'stablehlo': [f'--model={stablehlo}'],
                'port': [f'--model={color_model}', f'--port={port}'],
                'no model': [],
                'page': [f'--model={color_model}', f'--page={tmp_path}'],
            },
            tmp_path,
        )
    check_user_error(ended['missing'], ['none.onnx', 'No such file'])
    check_user_error(ended['damaged'], ['damaged.onnx', 'damaged'])
    check_user_error(ended['other'], ['no ONNX file', 'ssanet export'])
    check_user_error(ended['stablehlo'], ['serve needs an ONNX file', 'colors.stablehlo'])
    check_user_error(ended['port'], [f'port {port}', 'in use', '--port'])
    check_user_error(ended['no model'], ['--model'])
    check_user_error(ended['page'], ['--page', 'index.html'])


def test_a_missing_package_is_named_and_jax_is_not_needed(make_app, tmp_path):
    before = """
import sys, ssanet_jax.serving.app
assert not {'jax', 'flax'} & set(sys.modules)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'uvicorn' else find(name, *rest)
"""
    ended = run_each('ssanet_jax.serving', {'missing': [f'--model={__file__}']}, tmp_path, before)
    check_user_error(ended['missing'], ['uvicorn', "pip install -e '.[serve]'"])
