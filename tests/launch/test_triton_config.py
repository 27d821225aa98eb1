"""The configuration for Triton has the names, types and shapes of the file."""

import json
import re
import runpy

import pytest
from color_network import COLORS, INPUTS, write_color_network
from launch_sandbox import LAUNCH

pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")
pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")


def test_every_tensor_is_described(tmp_path):
    to_config = runpy.run_path(str(LAUNCH / 'triton_config.py'))['to_config']
    content = to_config(write_color_network(tmp_path / 'model.onnx'), max_batch=16)
    rows = re.findall(r'name: "(\w+)", data_type: (\w+), dims: (\[[\d, ]*\])(, reshape: { shape: \[\] })? }', content)
    found = {name: (kind, json.loads(dims), bool(scalar)) for name, kind, dims, scalar in rows}
    classes, side = len(COLORS), INPUTS.image_size
    assert len(rows) == content.count('name:') == 11
    assert found['images'] == ('TYPE_UINT8', [side, side, 3], False)
    assert found['logits'] == ('TYPE_FP32', [classes], False)
    assert found['part_logits'] == ('TYPE_FP32', [1, 2, classes], False)
    assert found['novelty'] == ('TYPE_FP32', [1], True)  # one number per image
    assert content.startswith('backend: "onnxruntime"\nmax_batch_size: 16\ninput [\n  { name: "images"')
