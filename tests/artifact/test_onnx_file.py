"""Files that are cut, altered, or not ours end with one line, and read no other file."""

import json
import random
from collections import Counter

import pytest

onnx = pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")
pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")

from exported_networks import make_predictor, open_content, random_images  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

import ssanet_jax  # noqa: E402
from ssanet_jax import UserError  # noqa: E402
from ssanet_jax.artifact.checksum import PLACEHOLDER, seal  # noqa: E402
from ssanet_jax.artifact.metadata import CHECKSUM, parse_entries  # noqa: E402
from ssanet_jax.artifact.model_file import read_model_file  # noqa: E402
from ssanet_jax.artifact.wire_format import OPERATORS, read_metadata  # noqa: E402
from ssanet_jax.export.onnx_export import export_onnx  # noqa: E402


@pytest.fixture(scope='module')
def content():
    """A small file."""
    predictor = make_predictor(('backbone', 'proposals', 'scale_mining'), held_out=40, num_scales=1)
    return export_onnx(predictor, 'birds', 'float16', random_images(2))[0]


def model_of(content):
    return onnx.load_from_string(content)


def reseal(model):
    """The content of a changed model, with the right checksum."""
    entries = [entry for entry in model.metadata_props if entry.key != CHECKSUM]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    model.metadata_props.add(key=CHECKSUM, value=PLACEHOLDER)
    return seal(model.SerializeToString())


def refusal(content):
    """The line with which a file is refused; '' if it is not."""
    try:
        open_content(content).outputs(random_images(2).inputs)
    except UserError as error:
        line = str(error)
        assert '\n' not in line and ':' in line
        return line
    return ''


def test_the_file_as_written(content, tmp_path):
    path = tmp_path / 'birds.onnx'
    path.write_bytes(content)
    assert read_model_file(path).metadata.class_names[0] == 'wren'
    assert type(ssanet_jax.load(path)).__name__ == 'OnnxPredictor'
    assert refusal(reseal(model_of(content))) == ''


def test_files_that_are_not_read(content, tmp_path):
    path = tmp_path / 'file.onnx'
    other = helper.make_model(helper.make_graph([], 'g', [], []))
    for data, words in (
        (b'', 'no ONNX file'),
        (b'\x89PNG\r\n\x1a\n' + bytes(200), 'no ONNX file'),
        (b'{"a": 1}' * 20, 'no ONNX file'),
        (content[: len(content) // 2], 'damaged'),
        (content[:-1], 'damaged'),
        (content[:-1] + b'x', 'checksum'),
        (other.SerializeToString(), 'lacks the metadata'),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=words) as caught:
            ssanet_jax.load(path)
        assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    with pytest.raises(UserError, match='cannot read'):
        read_model_file(tmp_path)
    with pytest.raises(UserError, match='cannot read'):
        read_model_file(tmp_path / 'absent.onnx')


def custom(model):
    model.graph.node[0].domain = 'com.example'


def nested(model):
    branch = helper.make_graph([], 'branch', [], [])
    model.graph.node.append(helper.make_node('If', ['x'], ['y'], then_branch=branch, else_branch=branch))


def hidden_graph(model):
    branch = helper.make_graph([], 'branch', [], [])
    model.graph.node[0].attribute.append(helper.make_attribute('body', branch))


def hidden_tensor(model):
    tensor = helper.make_tensor('t', TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.node[0].attribute.append(helper.make_attribute('value', tensor))


def function(model):
    model.functions.add(name='f', domain='')


def other_operator(model):
    model.graph.node[0].op_type = 'Loop'


def sparse(model):
    model.graph.sparse_initializer.add()


@pytest.mark.parametrize('change', [custom, nested, hidden_graph, hidden_tensor, function, other_operator, sparse])
def test_only_what_an_export_writes_is_read(content, change):
    model = model_of(content)
    change(model)
    assert refusal(reseal(model)).startswith('cannot use file: ')


def test_references_to_other_files_are_refused(content, tmp_path):
    secret = tmp_path / 'secret'
    secret.write_bytes(bytes(10**6))
    for location in (secret, 'secret', '../secret'):
        model = model_of(content)
        tensor = model.graph.initializer[0]
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key='location', value=str(location))
        assert 'field 1' in refusal(reseal(model))


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('class_names', '["a"]', 'shape'),
        ('class_names', '[]', 'damaged'),
        ('class_names', '[1, 2, 3, 4, 5]', 'damaged'),
        ('preprocessing', '{}', 'damaged'),
        ('calibration', '{"temperature": 0, "novelty_limit": 1, "score_limit": 1}', 'damaged'),
        ('calibration', '{"temperature": NaN, "novelty_limit": 1, "score_limit": 1}', 'damaged'),
        ('parts', '{"num_parts": 3, "heads": ["scale_mining"], "scales": [1.0], "orientations": []}', 'shape'),
        ('parts', '[' * 10**5, 'damaged'),
        ('format', '2', 'format'),
        ('license', '', 'damaged'),
    ],
)
def test_altered_metadata(content, key, value, words):
    model = model_of(content)
    for entry in model.metadata_props:
        if entry.key == f'ssanet_jax.{key}':
            entry.value = value
    assert words in refusal(reseal(model))


def test_metadata_that_are_absent(content):
    entries = read_metadata(memoryview(content))
    for key in entries.keys() - {CHECKSUM}:
        with pytest.raises(UserError):
            parse_entries({name: value for name, value in entries.items() if name != key})
    assert json.loads(entries['ssanet_jax.preprocessing'])['resize'] == 72


def test_altered_files_are_refused(content):
    """Every change of a byte, and every cut, is found by the checksum."""
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(content)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        assert refusal(bytes(data))


def alter(model, rng):
    """Changes something of a model that the checks before onnxruntime may not find."""
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    kind = rng.randrange(7)
    if kind == 0:
        node.op_type = rng.choice(sorted(OPERATORS))
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(graph.node).output[0]
    elif kind == 2 and node.attribute:
        attribute = rng.choice(node.attribute)
        number = rng.choice([0, -1, 1, 2**31 - 1, -(2**63), 10**6])
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = number
        else:
            attribute.i = number
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 4 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice([0, 1, -1, 2**40, 7])
    elif kind == 5:
        small = rng.choice([one for one in graph.initializer if 0 < len(one.raw_data) <= 64])
        data = bytearray(small.raw_data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        small.raw_data = bytes(data)
    else:
        del graph.node[rng.randrange(len(graph.node))]


def test_altered_models_with_the_right_checksum_crash_nothing(content):
    """Of those that a stranger might make, most are refused; the others are networks, if senseless ones."""
    found = Counter()
    for seed in range(150):
        model = model_of(content)
        alter(model, random.Random(seed))
        found['refused' if refusal(reseal(model)) else 'harmless'] += 1
    assert found['refused'] > 50 and found['harmless'] > 10, found
