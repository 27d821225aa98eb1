"""A network as `ssanet export` writes them, small enough to check by hand: the class is the nearest of some colors."""

from pathlib import Path

import numpy as np

from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.metadata import CHECKSUM, Calibration, Metadata, Parts, Provenance
from ssanet_jax.data.preprocessing import InputSettings

COLORS = {'red': (200, 30, 30), 'green, mostly': (30, 180, 40), '=blue "sky"': (40, 60, 210), 'white': (255, 255, 255)}
SETTINGS = InputSettings(image_size=24, resize=32, interpolation='bilinear', shrink=True, bit_depth=0)
BOXES = np.array([[0, 0, 12, 24], [12, 6, 24, 18]], np.float32)  # the upper half, and a square in the lower half
_SCALE = 2000.0


def write_color_model(path: Path) -> None:
    """Writes the network. The logits compare the mean colors of the upper and lower half with those of the classes.

    The difference of the two halves is its novelty.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size, colors = SETTINGS.image_size, np.array(list(COLORS.values()), np.float32)
    constants = {
        'top_start': np.array([0], np.int64),
        'middle': np.array([size // 2], np.int64),
        'bottom': np.array([size], np.int64),
        'rows': np.array([1], np.int64),
        'space': np.array([1, 2], np.int64),
        'classes': np.array([1], np.int64),
        'pixels': np.float32(size * size / 2),
        'colors': colors.T / _SCALE,
        'biases': (colors**2).sum(1) / (2 * _SCALE),
        'boxes_of_all': BOXES[None],
        'zero': np.float32(0),
        'range': np.float32(3 * 255),
        'as_parts': np.array([0, 1, 1, len(COLORS)], np.int64),
        'flat': np.array([0, 1, 1], np.int64),
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
        ]
    nodes += [
        node('Add', ['top_term', 'low_term'], ['logits']),
        node('Concat', ['top_part', 'low_part'], ['part_logits'], axis=2),
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
        node('Div', ['distances', 'range'], ['novelty']),
        node('Mul', ['largest', 'zero'], ['zeros']),
        node('Reshape', ['zeros', 'flat'], ['flat_zeros']),
        node('Add', ['flat_zeros', 'boxes_of_all'], ['boxes']),
    ]
    batch = lambda *shape: ['batch', *shape]
    output = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, batch(*shape))
    count = len(COLORS)
    outputs = [output(name, count) for name in ('logits', 'probabilities', 'image_logits', 'bias_logits')]
    outputs += [
        output('part_logits', 1, 2, count),
        output('boxes', 2, 4),
        output('embedding', 3),
        output('novelty'),
    ]
    graph = helper.make_graph(
        nodes,
        'colors',
        [helper.make_tensor_value_info('images', TensorProto.UINT8, batch(size, size, 3))],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    metadata = Metadata(
        class_names=tuple(COLORS),
        preprocessing=SETTINGS,
        calibration=Calibration(temperature=1.0, novelty_limit=0.4, score_limit=0.5),
        parts=Parts(num_parts=2, heads=('part',), scales=(), orientations=()),
        provenance=Provenance('0.2.0', 'colors', '0' * 64, 'float32', {}, 'nothing'),
        license='Apache-2.0',
    )
    helper.set_model_props(model, metadata.to_entries() | {CHECKSUM: PLACEHOLDER})
    path.write_bytes(seal(model.SerializeToString()))
