"""An exported network that needs no training: it names the color of a photo. And photos of one color each."""

import io
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.metadata import CHECKSUM, Calibration, Metadata, Parts, Provenance
from ssanet_jax.data.preprocessing import InputSettings

Color = tuple[int, int, int]
COLORS: list[Color] = list(itertools.product((0, 85, 170, 255), repeat=3))
CLASS_NAMES = tuple('color {} {} {}'.format(*color) for color in COLORS)
INPUTS = InputSettings(image_size=24, resize=32, interpolation='bilinear', shrink=True, bit_depth=0)
# Few colors, whose names must be quoted in tables and pages.
NAMED_COLORS = {
    'red': (200, 30, 30),
    'green, mostly': (30, 180, 40),
    '=blue "sky"': (40, 60, 210),
    'white': (255, 255, 255),
}
BOXES = np.array([[0, 0, 12, 24], [12, 6, 24, 18]], np.float32)  # the upper half, and a square in the lower half
NOVELTY = 0.25  # of a photo of one color
NOVELTY_LIMIT = 0.65
_GRID = dict(zip(CLASS_NAMES, COLORS))
_SCALE = 2000.0


def photo(color: Color, form: str = 'PNG', size: tuple[int, int] = (36, 54)) -> bytes:
    """A file of one color; `size` is (width, height)."""
    file = io.BytesIO()
    Image.new('RGB', size, color).save(file, form)
    return file.getvalue()


def write_color_network(path: Path, classes: Mapping[str, Color] = _GRID) -> Path:
    """Writes an ONNX file as `docs/export.md` describes it; the class of a photo is the color closest to its mean.

    Its two parts are the upper and the lower half, whose mean colors are compared with those of the classes. Their
    difference makes a photo novel.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size, count, colors = INPUTS.image_size, len(classes), np.array(list(classes.values()), np.float32)
    constants = {
        'top_start': np.array([0]),
        'middle': np.array([size // 2]),
        'bottom': np.array([size]),
        'rows': np.array([1]),
        'space': np.array([1, 2]),
        'classes': np.array([1]),
        'pixels': np.float32(size * size / 2),
        'colors': colors.T / _SCALE,
        'biases': (colors**2).sum(1) / (2 * _SCALE),
        'boxes_of_all': BOXES[None],
        'zero': np.float32(0),
        'range': np.float32(3 * 255),
        'least_novelty': np.float32(NOVELTY),
        'as_parts': np.array([0, 1, 1, count]),
        'flat': np.array([0, 1, 1]),
        'vectors': np.array([0, 1, 3]),
    }
    node = helper.make_node
    nodes = [node('Cast', ['images'], ['numbers'], to=TensorProto.FLOAT)]
    for half, start, stop in (('top', 'top_start', 'middle'), ('low', 'middle', 'bottom')):
        nodes += [
            node('Slice', ['numbers', start, stop, 'rows'], [f'{half}_pixels']),
            node('ReduceSum', [f'{half}_pixels', 'space'], [f'{half}_sum'], keepdims=0),
            node('Div', [f'{half}_sum', 'pixels'], [f'{half}_mean']),
            node('MatMul', [f'{half}_mean', 'colors'], [f'{half}_product']),
            node('Sub', [f'{half}_product', 'biases'], [f'{half}_term']),
            node('Reshape', [f'{half}_term', 'as_parts'], [f'{half}_part']),
            node('Reshape', [f'{half}_mean', 'vectors'], [f'{half}_vector']),
        ]
    nodes += [
        node('Add', ['top_term', 'low_term'], ['logits']),
        node('Concat', ['top_part', 'low_part'], ['part_logits'], axis=2),
        node('Concat', ['top_vector', 'low_vector'], ['part_embeddings'], axis=1),
        node('ReduceMax', ['logits'], ['largest'], axes=[1], keepdims=1),
        node('Sub', ['logits', 'largest'], ['lower']),
        node('Exp', ['lower'], ['exponentials']),
        node('ReduceSum', ['exponentials', 'classes'], ['total'], keepdims=1),
        node('Div', ['exponentials', 'total'], ['probabilities']),
        node('Mul', ['logits', 'zero'], ['image_logits']),
        node('Mul', ['logits', 'zero'], ['bias_logits']),
        node('Add', ['top_mean', 'low_mean'], ['embedding']),
        node('Sub', ['top_mean', 'low_mean'], ['difference']),
        node('Abs', ['difference'], ['distance']),
        node('ReduceSum', ['distance', 'classes'], ['distances'], keepdims=0),
        node('Div', ['distances', 'range'], ['share']),
        node('Add', ['share', 'least_novelty'], ['novelty']),
        node('Mul', ['largest', 'zero'], ['zeros']),
        node('Reshape', ['zeros', 'flat'], ['flat_zeros']),
        node('Add', ['flat_zeros', 'boxes_of_all'], ['boxes']),
        node('Identity', ['boxes'], ['proposals']),
    ]
    shapes = {
        **{name: [count] for name in ('logits', 'probabilities', 'image_logits', 'bias_logits')},
        'part_logits': [1, 2, count],
        'boxes': [2, 4],
        'proposals': [2, 4],
        'embedding': [3],
        'part_embeddings': [2, 3],
        'novelty': [],
    }
    graph = helper.make_graph(
        nodes,
        'colors',
        [helper.make_tensor_value_info('images', TensorProto.UINT8, ['batch', size, size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ['batch', *shape]) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    metadata = Metadata(
        class_names=tuple(classes),
        preprocessing=INPUTS,
        calibration=Calibration(temperature=1.0, novelty_limit=NOVELTY_LIMIT, score_limit=0.5),
        parts=Parts(num_parts=2, heads=('part',), scales=(), orientations=()),
        provenance=Provenance('0.2.0', 'colors', '0' * 64, 'float32', {}, 'nothing'),
        license='Apache-2.0',
    )
    for key, value in (metadata.to_entries() | {CHECKSUM: PLACEHOLDER}).items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(seal(model.SerializeToString(deterministic=True)))
    return path
