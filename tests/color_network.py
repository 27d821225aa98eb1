"""An exported network that needs no training: it names the color of a photo. And photos of one color each."""

import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.metadata import CHECKSUM, Calibration, Metadata, Parts, Provenance
from ssanet_jax.data.preprocessing import InputSettings

COLORS = list(itertools.product((0, 85, 170, 255), repeat=3))
CLASS_NAMES = tuple('color {} {} {}'.format(*color) for color in COLORS)
INPUTS = InputSettings(image_size=16, resize=18, interpolation='bilinear', shrink=False, bit_depth=0)
BOX = [1.0, 2.0, 9.0, 12.0]  # of the only part, in pixels of the input
NOVELTY = 0.25
_GAIN = 100.0


def photo(color: tuple[int, int, int], form: str = 'PNG', size: tuple[int, int] = (36, 54)) -> bytes:
    """A file of one color; `size` is (width, height)."""
    file = io.BytesIO()
    Image.new('RGB', size, color).save(file, form)
    return file.getvalue()


def write_color_network(path: Path) -> Path:
    """Writes an ONNX file as `docs/export.md` describes it; the class of a photo is the color closest to its mean."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    side, classes = INPUTS.image_size, len(COLORS)
    colors = np.array(COLORS, np.float32) / 255
    constants = {
        'scale': np.float32(1 / 255 / side**2),
        'spatial': np.array([1, 2]),
        'last': np.array([1]),
        'all_axes': np.array([1]),
        'to_logits': (2 * _GAIN * colors).T,
        'squares': (_GAIN * (colors**2).sum(1)).astype(np.float32),
        'zero': np.float32(0),
        'part_shape': np.array([-1, 1, 1, classes]),
        'box': np.array([[BOX]], np.float32),
        'one_box': np.array([-1, 1, 1]),
        'novelty_value': np.float32(NOVELTY),
        'one_vector': np.array([-1, 1, 3]),
    }
    node = helper.make_node
    nodes = [
        node('Cast', ['images'], ['pixels'], to=TensorProto.FLOAT),
        node('ReduceSum', ['pixels', 'spatial'], ['sums'], keepdims=0),
        node('Mul', ['sums', 'scale'], ['embedding']),
        node('MatMul', ['embedding', 'to_logits'], ['products']),
        node('Sub', ['products', 'squares'], ['logits']),
        node('Identity', ['logits'], ['image_logits']),
        node('Mul', ['logits', 'zero'], ['bias_logits']),
        node('Reshape', ['bias_logits', 'part_shape'], ['part_logits']),
        node('ReduceMax', ['logits'], ['largest'], axes=[1], keepdims=1),
        node('Sub', ['logits', 'largest'], ['shifted']),
        node('Exp', ['shifted'], ['exponentials']),
        node('ReduceSum', ['exponentials', 'last'], ['total'], keepdims=1),
        node('Div', ['exponentials', 'total'], ['probabilities']),
        node('ReduceSum', ['bias_logits', 'all_axes'], ['nothing'], keepdims=0),
        node('Add', ['nothing', 'novelty_value'], ['novelty']),
        node('Reshape', ['nothing', 'one_box'], ['no_box']),
        node('Add', ['no_box', 'box'], ['boxes']),
        node('Identity', ['boxes'], ['proposals']),
        node('Reshape', ['embedding', 'one_vector'], ['part_embeddings']),
    ]
    shapes = {
        'logits': ['N', classes],
        'probabilities': ['N', classes],
        'novelty': ['N'],
        'image_logits': ['N', classes],
        'bias_logits': ['N', classes],
        'part_logits': ['N', 1, 1, classes],
        'boxes': ['N', 1, 4],
        'proposals': ['N', 1, 4],
        'embedding': ['N', 3],
        'part_embeddings': ['N', 1, 3],
    }
    graph = helper.make_graph(
        nodes,
        'color',
        [helper.make_tensor_value_info('images', TensorProto.UINT8, ['N', side, side, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    metadata = Metadata(
        class_names=CLASS_NAMES,
        preprocessing=INPUTS,
        calibration=Calibration(temperature=1.0, novelty_limit=0.95, score_limit=0.5),
        parts=Parts(num_parts=1, heads=('parts',), scales=(), orientations=()),
        provenance=Provenance('0.2.0', 'colors', '0' * 64, 'float32', {}, 'none'),
        license='',
    )
    for key, value in (metadata.to_entries() | {CHECKSUM: PLACEHOLDER}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(seal(model.SerializeToString(deterministic=True)))
    return path
