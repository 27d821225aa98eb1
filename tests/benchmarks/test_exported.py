"""The benchmarks of exported networks, at their smallest."""

import importlib.util

import jax
import numpy as np
import pytest

pytest.importorskip('onnx', reason="needs onnx: pip install -e '.[export]'")
pytest.importorskip('onnxruntime', reason="needs onnxruntime: pip install -e '.[export]'")

from benchmarks import artifacts, exported, networks
from benchmarks.artifacts import ONNXRUNTIME, OPENVINO
from benchmarks.networks import Size
from ssanet_jax.models.ssanet import split_model

HAS_OPENVINO = importlib.util.find_spec('openvino') is not None


@pytest.mark.slow
def test_every_runtime_has_a_row():
    settings = exported.Settings(backbone='resnet_tiny', size=64, num_classes=3, batch=(2,), rounds=1)
    first, second = exported.measure(settings).comparisons
    assert (first.first, first.second) == (ONNXRUNTIME, exported.XLA) and first.ratio > 0
    assert first.images_per_second == pytest.approx([1 / seconds for seconds in first.seconds])
    assert (second.first, second.second) == (OPENVINO, ONNXRUNTIME)
    assert HAS_OPENVINO == (second.ratio is not None) != second.remark.startswith('OpenVINO is not installed')


@pytest.mark.slow
def test_the_network_that_is_compared_with_nts_net_is_the_one_that_xla_runs():
    """Its arrays have the shapes of those that `networks.load` times; the weights differ."""
    size = Size('resnet_tiny', 64, 3, 1)
    predictor = networks.make_predictor('image', size)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    file = artifacts.export(predictor, images, 'float32')
    workloads = artifacts.runtimes(file, images[:1]).workloads
    found, expected = workloads[ONNXRUNTIME](), predictor.outputs(images[:1])
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    if HAS_OPENVINO:
        np.testing.assert_allclose(workloads[OPENVINO]()['logits'], expected.logits, atol=1e-3)
    shapes = lambda model: sorted(leaf.shape for leaf in jax.tree.leaves(split_model(model)[1]))
    assert shapes(predictor.network) == shapes(networks._build('image', size))
