"""Requests to the server, and its answers to bad ones."""


def error_of(response, status: int) -> str:
    """The only field of an error, which is one sentence without a path of the server or an address in its memory."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ['error']
    sentence = body['error']
    assert '\n' not in sentence and '0x' not in sentence
    assert '/' not in sentence.replace('multipart/form-data', '')
    return sentence


def predict_scope(headers: list[tuple[bytes, bytes]]) -> dict:
    """The ASGI scope of a `POST /predict`."""
    empty = {'query_string': b'', 'root_path': ''}
    return {'type': 'http', 'method': 'POST', 'path': '/predict', 'headers': headers} | empty
