"""The routes of the server, in this process."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from answers import error_of, predict_scope
from color_network import BOXES, CLASS_NAMES, COLORS, INPUTS, NOVELTY, photo

from ssanet_jax.data.preprocessing import to_source_pixels
from ssanet_jax.prediction_files import json_lines
from ssanet_jax.serving.limits import Limits


def test_a_photo_as_the_body_has_the_line_of_predict(client, predictor, tmp_path):
    data = photo((85, 255, 0), 'JPEG')
    response = client.post('/predict', content=data, headers={'content-type': 'image/jpeg'})
    assert response.status_code == 200
    (line,) = response.json()['predictions']
    assert line['class'] == 'color 85 255 0'
    assert line['novelty'] == NOVELTY and line['unsure'] == ''
    expected = to_source_pixels(BOXES, (54, 36), INPUTS)
    np.testing.assert_allclose(line['boxes'], expected, atol=0.05)
    path = tmp_path / 'photo.jpg'
    path.write_bytes(data)
    (prediction,) = predictor.predict(path)
    assert line == json_lines.to_line(prediction, 5) | {'file': None}


def test_files_of_a_form_are_answered_in_their_order_with_their_names(client):
    chosen = COLORS[10:13]
    names = ['a.png', '../../etc/b.png', 'ü"\n.png']
    files = [('any', (name, photo(color), 'image/png')) for name, color in zip(names, chosen)]
    response = client.post('/predict', files=files, data={'comment': 'not a file'}, params={'top': '2'})
    assert response.status_code == 200, response.text
    lines = response.json()['predictions']
    assert [line['class'] for line in lines] == [CLASS_NAMES[i] for i in (10, 11, 12)]
    assert [line['file'] for line in lines][:2] == names[:2]
    assert all(len(line['probabilities']) == 2 for line in lines)


@pytest.mark.parametrize('top', ['0', '-1', 'x', '1.5', '٣', '9' * 5000, ''])
def test_a_wrong_number_of_classes_is_refused(client, top):
    assert 'top' in error_of(client.post('/predict', content=photo(COLORS[0]), params={'top': top}), 400)


def test_more_classes_than_there_are_lists_all(client):
    response = client.post('/predict', content=photo(COLORS[0]), params={'top': '1000'})
    assert len(response.json()['predictions'][0]['probabilities']) == len(COLORS)


def test_a_full_server_says_so_and_answers_again_later(make_client, held):
    with make_client(held, Limits(queue=2, files=2), batch_size=1) as client:
        held.gate.clear()
        held.started.clear()
        with ThreadPoolExecutor(2) as pool:
            accepted = [pool.submit(client.post, '/predict', content=photo(color)) for color in COLORS[:2]]
            end = time.monotonic() + 10
            while 'ssanet_requests 2' not in client.get('/metrics').text:
                assert time.monotonic() < end
            refused = client.post('/predict', content=photo(COLORS[2]))
            assert error_of(refused, 503).startswith('the server is busy')
            assert int(refused.headers['retry-after']) >= 1
            assert client.get('/health').status_code == 200
            held.gate.set()
            classes = [one.result().json()['predictions'][0]['class'] for one in accepted]
        assert classes == list(CLASS_NAMES[:2])
        assert client.post('/predict', content=photo(COLORS[2])).status_code == 200


def test_more_photos_than_the_queue_has_room_for_are_refused(make_client, held):
    with make_client(held, Limits(queue=2, files=3), batch_size=1) as client:
        files = [('photos', (f'{i}.png', photo(COLORS[i]))) for i in range(3)]
        assert 'busy' in error_of(client.post('/predict', files=files), 503)
        assert client.post('/predict', files=files[:2]).status_code == 200


def test_a_failing_network_is_reported_and_the_server_is_not_ready(make_client, held, caplog):
    with make_client(held) as client:
        assert client.get('/health').json()['status'] == 'ready'
        held.fails = True
        sentence = error_of(client.post('/predict', content=photo(COLORS[0])), 500)
        assert 'the network failed' in sentence
        assert 'out of memory' in caplog.text  # for whoever runs the server
        response = client.get('/health')
        assert response.status_code == 503 and response.json()['status'] == 'not ready'
        held.fails = False
        assert client.post('/predict', content=photo(COLORS[0])).status_code == 200
        assert client.get('/health').status_code == 200


def test_a_client_that_has_gone_is_not_computed(make_app, held):
    app = make_app(held, batch_size=1)

    async def main():
        gone = asyncio.Event()
        sent = []

        def request(color, goes):
            body = [photo(color)]

            async def receive():
                if body:
                    return {'type': 'http.request', 'body': body.pop(), 'more_body': False}
                await (gone.wait() if goes else asyncio.sleep(60))
                return {'type': 'http.disconnect'}

            async def send(message):
                sent.append(message)

            return asyncio.create_task(app(predict_scope([]), receive, send))

        async with app.router.lifespan_context(app):
            held.gate.clear()
            held.started.clear()
            first = request(COLORS[0], False)
            await asyncio.to_thread(held.started.wait, 10)
            second = request(COLORS[1], True)
            await asyncio.sleep(0.1)
            gone.set()
            await asyncio.wait_for(second, 10)  # while the first is still computed
            held.gate.set()
            await asyncio.wait_for(first, 10)
        return sent

    sent = asyncio.run(main())
    assert [message['status'] for message in sent if message['type'] == 'http.response.start'] == [499, 200]
    assert b'color 0 0 0' in sent[-1]['body']


def test_metrics_count_answers_and_photos(make_client, predictor):
    with make_client(predictor) as client:
        client.post('/predict', files=[('photos', (str(i), photo(COLORS[i]))) for i in range(3)])
        client.post('/predict', content=b'text')
        page = client.get('/metrics')
    assert page.headers['content-type'].startswith('text/plain; version=0.0.4')
    lines = page.text.splitlines()
    for line in (
        'ssanet_requests_total{status="200"} 1',
        'ssanet_requests_total{status="422"} 1',
        'ssanet_photos_total 3',
        'ssanet_request_seconds_count 1',
        'ssanet_batch_photos_sum 3.0',
        'ssanet_requests 0',
        'ssanet_waiting_photos 0',
    ):
        assert line in lines


def test_the_page_is_a_form_that_loads_nothing_from_elsewhere(client):
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html')
    assert 'multipart/form-data' in page.text and 'type="file"' in page.text
    assert 'http' not in page.text.replace('http-equiv', '')
    assert "default-src 'none'" in page.headers['content-security-policy']


def test_a_folder_of_static_files_takes_the_place_of_the_form(make_client, predictor, tmp_path):
    folder = tmp_path / 'page'
    folder.mkdir()
    (folder / 'index.html').write_text('<p>the page')
    (folder / 'session.mjs').write_text('export default 1')
    (folder / 'health').write_text('a file of the name of a route')
    (tmp_path / 'secret.txt').write_text('secret')
    with make_client(predictor, page=folder) as client:
        page = client.get('/')
        assert page.text == '<p>the page'
        # Browsers let a page share memory between threads only with these two.
        assert page.headers['cross-origin-opener-policy'] == 'same-origin'
        assert page.headers['cross-origin-embedder-policy'] == 'require-corp'
        assert client.get('/session.mjs').headers['content-type'].startswith('text/javascript')
        assert client.get('/health').json()['status'] == 'ready'
        assert client.post('/predict', content=photo(COLORS[3])).status_code == 200
        for path in ('/../secret.txt', '/%2e%2e/secret.txt', '/..%2fsecret.txt', f'/{tmp_path}/secret.txt'):
            assert client.get(path).status_code == 404


def test_other_paths_and_methods_are_refused(client):
    assert client.get('/nothing').status_code == 404
    assert client.get('/predict').status_code == 405
    assert list(client.get('/nothing').json()) == ['error']


def references(node):
    if isinstance(node, dict):
        if '$ref' in node:
            yield node['$ref']
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield from references(value)


def test_openapi_describes_the_routes_and_their_answers(client):
    document = client.get('/openapi.json').json()
    assert document['openapi'].startswith('3.1.') and document['info'].keys() >= {'title', 'version'}
    routes = {route.path: {method.lower() for method in route.methods - {'HEAD'}} for route in client.app.routes}
    described = {path: set(methods) for path, methods in document['paths'].items()}
    assert described == {path: routes[path] for path in routes if path not in ('/', '/openapi.json')}
    operations = [operation for methods in document['paths'].values() for operation in methods.values()]
    assert len({operation['operationId'] for operation in operations}) == len(operations)
    schemas = document['components']['schemas']
    assert {f'#/components/schemas/{name}' for name in schemas} == set(references(document))
    for operation in operations:
        for status, response in operation['responses'].items():
            assert 100 <= int(status) <= 599 and response['description']


@pytest.mark.parametrize(
    ('method', 'path', 'content', 'status'),
    [('post', '/predict', photo(COLORS[0]), 200), ('post', '/predict', b'text', 422), ('get', '/health', None, 200)],
    ids=['prediction', 'error', 'health'],
)
def test_answers_are_as_openapi_describes_them(client, method, path, content, status):
    jsonschema = pytest.importorskip('jsonschema', reason='jsonschema is not installed')
    document = client.get('/openapi.json').json()
    response = client.request(method, path, content=content)
    assert response.status_code == status
    described = document['paths'][path][method]['responses'][str(status)]['content']['application/json']['schema']
    jsonschema.validate(response.json(), document | described)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, document | described)
