"""OpenVINO runs exported ONNX files, and says what onnxruntime says."""

import numpy as np
import pytest

pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")
pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")
openvino = pytest.importorskip('openvino', reason='needs OpenVINO: pip install openvino')

from exported_networks import ALL, make_predictor, open_content, random_images  # noqa: E402

from ssanet_jax.export.onnx_export import export_onnx  # noqa: E402

SETTINGS = {
    'prototypes': (ALL[:3], dict(proposal='prototypes', sharing='none', num_scales=1)),
    'ranking, upright': ((*ALL, 'upright'), dict(upright=4, upright_size=32)),
}


@pytest.mark.parametrize('name', SETTINGS)
@pytest.mark.parametrize('weights', ['float32', 'float16'])
def test_every_output_is_that_of_onnxruntime(name, weights):
    """In float32: without the hint, OpenVINO computes in bfloat16 on CPUs that have it, and parts move."""
    active, settings = SETTINGS[name]
    images = random_images(5)
    data, _ = export_onnx(make_predictor(active, held_out=40, **settings), 'birds', weights, images)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(data), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    exported = open_content(data)
    for inputs in (images.inputs, images.inputs[3:4]):  # any number of images
        expected, found = exported.run(inputs), compiled(inputs)
        for key, array in expected.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_allclose(found[key], array, rtol=1e-3, atol=1e-3, err_msg=key)
        np.testing.assert_allclose(found['probabilities'], expected['probabilities'], atol=1e-4)
