"""The description of the server in OpenAPI 3.1."""

from typing import Any

from ssanet_jax import __version__
from ssanet_jax.serving.limits import Limits


def describe(limits: Limits, num_classes: int) -> dict[str, Any]:
    """The document of `/openapi.json`.

    Args:
      limits: those of the server.
      num_classes: the number of classes of the network.
    """
    size = f'{limits.upload_bytes / 1e6:g} MB in all, {limits.pixels / 1e6:g} million pixels each'
    binary = {'type': 'string', 'format': 'binary'}
    photos = {'type': 'array', 'items': binary, 'minItems': 1, 'maxItems': limits.files}
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'ssanet_jax',
            'version': __version__,
            'description': 'Classes and parts of photos.',
        },
        'paths': {
            '/predict': {
                'post': {
                    'summary': 'Predict the class of photos, and find their parts.',
                    'operationId': 'predict',
                    'parameters': [
                        {
                            'name': 'top',
                            'in': 'query',
                            'description': 'Number of classes to list.',
                            'schema': {'type': 'integer', 'minimum': 1, 'maximum': num_classes, 'default': 5},
                        }
                    ],
                    'requestBody': {
                        'required': True,
                        'description': f'One photo as the body, or up to {limits.files} as files of a form. {size}.',
                        'content': {
                            'image/*': {'schema': binary},
                            'multipart/form-data': {
                                'schema': {'type': 'object', 'properties': {'photos': photos}, 'required': ['photos']}
                            },
                        },
                    },
                    'responses': {
                        '200': _response('One prediction per photo, in order.', 'Predictions'),
                        '400': _response('The request holds no photo, or cannot be read.', 'Error'),
                        '408': _response('The upload took too long.', 'Error'),
                        '413': _response('The upload is too long.', 'Error'),
                        '422': _response('A file cannot be read as a photo; there is no prediction at all.', 'Error'),
                        '500': _response('The network failed.', 'Error'),
                        '503': _response('The server is busy.', 'Error')
                        | {'headers': {'Retry-After': {'description': 'Seconds.', 'schema': {'type': 'integer'}}}},
                    },
                }
            },
            '/health': {
                'get': {
                    'summary': 'Whether the server can predict.',
                    'operationId': 'health',
                    'responses': {
                        '200': _response('It can.', 'Health'),
                        '503': _response('It cannot: its network has failed, or it is stopping.', 'Health'),
                    },
                }
            },
            '/metrics': {
                'get': {
                    'summary': "Measurements in Prometheus' text format.",
                    'operationId': 'metrics',
                    'responses': {
                        '200': {
                            'description': 'The measurements.',
                            'content': {'text/plain': {'schema': {'type': 'string'}}},
                        }
                    },
                }
            },
        },
        'components': {'schemas': _SCHEMAS},
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    content = {'application/json': {'schema': {'$ref': f'#/components/schemas/{schema}'}}}
    return {'description': description, 'content': content}


def _array(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {'type': 'array', 'items': items, 'description': description}


_NUMBER, _STRING = {'type': 'number'}, {'type': 'string'}
_SCHEMAS = {
    'Predictions': {
        'type': 'object',
        'properties': {
            'predictions': _array({'$ref': '#/components/schemas/Prediction'}, 'In the order of the photos.')
        },
        'required': ['predictions'],
    },
    'Prediction': {
        'type': 'object',
        'properties': {
            'file': {'type': ['string', 'null'], 'description': 'The name that the client gave.'},
            'class': _STRING,
            'probabilities': {
                'type': 'object',
                'additionalProperties': {'type': 'number', 'minimum': 0, 'maximum': 1},
                'description': 'Of the most probable classes, best first.',
            },
            'boxes': _array(
                {'type': 'array', 'items': _NUMBER, 'minItems': 4, 'maxItems': 4},
                'One per part: y0, x0, y1, x1 in pixels of the photo, upright as its EXIF orientation says.',
            ),
            'scale': _array(_NUMBER, 'Chosen for each part.'),
            'orientation': _array(_STRING, 'Chosen for each part.'),
            'present': _array({'type': 'boolean'}, 'Whether each part is to be seen.'),
            'angle': {'type': 'number', 'description': 'Degrees by which the photo was turned upright, clockwise.'},
            'novelty': {'type': 'number', 'description': 'The share of known images that are less strange.'},
            'unsure': {'type': 'string', 'description': 'The reason not to rely on the class, or an empty string.'},
        },
        'required': ['file', 'class', 'probabilities', 'boxes', 'scale', 'orientation'],
    },
    'Health': {
        'type': 'object',
        'properties': {
            'status': {'enum': ['ready', 'not ready']},
            'model': {'type': 'string', 'description': 'The name of the run that was exported.'},
            'digest': {'type': 'string', 'description': 'Identifies the file of the network.'},
            'version': {'type': 'string', 'description': 'Of ssanet_jax on the server.'},
        },
        'required': ['status', 'model', 'digest', 'version'],
    },
    'Error': {
        'type': 'object',
        'properties': {'error': {'type': 'string', 'description': 'One sentence.'}},
        'required': ['error'],
    },
}
