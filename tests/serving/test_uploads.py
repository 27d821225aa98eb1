"""Uploads that are refused: each answer is one sentence."""

import asyncio
import struct
import zlib

import pytest
from answers import error_of, predict_scope
from color_network import COLORS, photo

from ssanet_jax.serving.limits import Limits

TIGHT = Limits(upload_bytes=200_000)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')
    )


async def post(app, receive, headers, taken=()) -> list[tuple[dict, int]]:
    """The messages of the answer to an upload, whose pieces `receive` gives, each with the length of `taken` then."""
    sent = []

    async def send(message):
        sent.append((message, len(taken)))

    await app(predict_scope(list(headers)), receive, send)
    return sent


@pytest.mark.parametrize(
    ('body', 'words'),
    [
        (b'just some text', 'not an image'),
        (b'%PDF-1.7\n1 0 obj', 'not an image'),
        (b'<!doctype html><p>', 'web page'),
        (photo((1, 2, 3), 'JPEG', (200, 200))[:-300], 'truncated'),
        (photo((1, 2, 3), size=(400, 300)), '400 x 300 pixels exceed the limit of 0.1 million'),
        (png_claiming(60_000, 60_000), '3600000000 pixels'),
        (png_claiming(300, 300), 'photo 1 cannot be read'),
    ],
    ids=['text', 'pdf', 'html', 'cut', 'pixels', 'bomb', 'short'],
)
def test_a_body_that_is_no_photo_is_refused(client, body, words):
    assert words in error_of(client.post('/predict', content=body), 422)
    form = client.post('/predict', files=[('photos', ('/srv/x.jpg', body))])
    assert words in error_of(form, 422)


def test_one_bad_file_among_good_ones_is_named_by_its_place(client):
    files = [('photos', ('same.png', data)) for data in (photo(COLORS[1]), b'text')]
    assert 'photo 2 cannot be read' in error_of(client.post('/predict', files=files), 422)


def test_a_claimed_size_is_refused_before_any_pixel_is_decoded(client, monkeypatch):
    from PIL import ImageFile

    def decode(self):
        raise AssertionError('pixels were decoded')

    monkeypatch.setattr(ImageFile.ImageFile, 'load', decode)
    assert 'exceed' in error_of(client.post('/predict', content=png_claiming(1000, 1000)), 422)


def test_requests_without_a_photo_are_refused(client):
    assert 'there is no photo' in error_of(client.post('/predict'), 400)
    assert 'there is no photo' in error_of(client.post('/predict', files=[('photos', ('', b''))]), 400)
    form = {'content-type': 'multipart/form-data; boundary=x'}
    no_file = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
    assert 'there is no photo' in error_of(client.post('/predict', content=no_file, headers=form), 400)
    assert 'empty' in error_of(client.post('/predict', files=[('photos', ('a.jpg', b''))]), 422)


@pytest.mark.parametrize(
    ('content_type', 'body'),
    [
        ('multipart/form-data', b'--x'),
        ('multipart/form-data; boundary=x', b'no boundary'),
        ('multipart/form-data; boundary=x', b'--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--\r\n'),
        (
            'multipart/form-data; boundary=x',
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\ncut',
        ),
    ],
)
def test_damaged_forms_are_refused(client, content_type, body):
    error_of(client.post('/predict', content=body, headers={'content-type': content_type}), 400)


def test_a_form_that_is_cut_off_is_refused_though_its_first_file_is_whole(client):
    whole = client.build_request('POST', 'http://x/predict', files=[('a', ('a', photo(COLORS[i]))) for i in (1, 2)])
    headers = {'content-type': whole.headers['content-type']}
    body = whole.read()
    assert client.post('/predict', content=body, headers=headers).status_code == 200
    assert 'cut off' in error_of(client.post('/predict', content=body[:-60], headers=headers), 400)


def test_too_many_files_are_refused(client):
    files = [('photos', (f'{i}.png', photo(COLORS[0]))) for i in range(4)]
    assert 'at most 3 files' in error_of(client.post('/predict', files=files), 400)


def test_a_long_upload_is_refused_by_its_declared_length_before_it_is_read(make_app, predictor):
    taken = []

    async def receive():
        taken.append(b'')
        return {'type': 'http.disconnect'}

    headers = [(b'content-length', b'200001')]
    (start, _), (answer, taken_before), *_ = asyncio.run(post(make_app(predictor, TIGHT), receive, headers, taken))
    assert start['status'] == 413
    assert (b'connection', b'close') in start['headers']
    assert b'more than 0.2 MB' in answer['body']
    assert taken_before == 0


@pytest.mark.parametrize('content_type', [b'image/jpeg', b'multipart/form-data; boundary=x'])
def test_a_long_upload_in_pieces_is_refused_before_it_is_read_whole(make_app, predictor, content_type):
    pieces = [b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n', *[bytes(50_000)] * 99]
    taken = []

    async def receive():
        taken.append(pieces[len(taken)])
        return {'type': 'http.request', 'body': taken[-1], 'more_body': len(taken) < len(pieces)}

    headers = (b'content-type', content_type), (b'transfer-encoding', b'chunked')
    (start, taken_before), (answer, _), *_ = asyncio.run(post(make_app(predictor, TIGHT), receive, headers, taken))
    assert start['status'] == 413 and b'more than 0.2 MB' in answer['body']
    assert (b'connection', b'close') in start['headers']
    assert taken_before == 5  # the header of the file, and four pieces of 50,000 bytes


def test_a_slow_upload_is_refused(make_app, predictor, monkeypatch):
    monkeypatch.setattr('ssanet_jax.serving.unread_bodies.SECONDS', 0.05)
    pieces = [b'abc', b'def']

    async def receive():
        if not pieces:
            await asyncio.sleep(60)
        return {'type': 'http.request', 'body': pieces.pop(), 'more_body': True}

    app = make_app(predictor, Limits(upload_seconds=0.05))
    answers = asyncio.run(asyncio.wait_for(post(app, receive, [(b'content-length', b'100')]), 10))
    (start, _), (answer, _), _ = answers
    assert start['status'] == 408
    assert b'longer than 0.05 s' in answer['body']
