"""The PyTorch reference does the work of NTS-Net."""

import copy

import pytest

torch = pytest.importorskip('torch', reason='needs the extra torch-parity')

from torch import nn  # noqa: E402

from benchmarks import torch_nts, torch_nts_net  # noqa: E402
from benchmarks.torch_backbones import fold_norms, resnet50  # noqa: E402
from benchmarks.torch_nts_net import NTSNet, make_call, set_best_threads  # noqa: E402


def test_six_crops_of_half_the_side_pass_and_four_are_classified():
    network = NTSNet(64, 3).eval()
    passes = []
    network.backbone.register_forward_hook(lambda _, inputs, output: passes.append((inputs[0], output)))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits = network(images)
    (whole, whole_map), (crops, crop_maps) = passes
    assert whole is images and crops.shape == (12, 3, 32, 32) and logits.shape == (2, 3)
    # Image by image, and each crop has the corners of its box.
    for index, (y0, x0, y1, x1) in enumerate(network.boxes):
        crop = crops[6 + index]
        torch.testing.assert_close(crop[:, 0, 0], images[1, :, y0, x0])
        torch.testing.assert_close(crop[:, -1, -1], images[1, :, y1 - 1, x1 - 1])
    averages = [whole_map[1].mean((1, 2)), *(crop_maps[6 + index].mean((1, 2)) for index in range(4))]
    expected = network.classifier.weight @ torch.cat(averages) + network.classifier.bias
    torch.testing.assert_close(logits[1], expected)


def test_boxes_are_inside_the_image():
    for y0, x0, y1, x1 in torch_nts_net.BOXES:
        assert 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1
    assert len(torch_nts_net.BOXES) == torch_nts_net.PROPOSALS


def test_the_fastest_number_of_threads_is_kept(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(torch_nts_net.os, 'sched_getaffinity', lambda _: range(4))
    pace = {2: 1.0}  # any other number takes longer
    monkeypatch.setattr(torch_nts_net, '_time', lambda call: pace.get(torch.get_num_threads(), 2.0))
    try:
        assert set_best_threads(lambda: None) == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_call_predicts():
    assert make_call(64, 5, 1, compiled=False)().shape == (1, 5)


def test_folding_keeps_the_output():
    torch.manual_seed(0)
    network = resnet50().eval()
    for module in network.modules():  # not the initial values, so that each matters
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                values.uniform_(low, high)
    folded = copy.deepcopy(network)
    fold_norms(folded)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 53
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected, found = network(images), folded(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_the_timed_network_is_folded_and_selects_kernels(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    calls = []
    monkeypatch.setattr(torch_nts_net.NTSNet, 'forward', lambda network, images: calls.append((network, images)))
    make_call(64, 5, 1, compiled=False)()
    ((network, images),) = calls
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 53 and all(conv.bias is not None for conv in convolutions)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    last = torch.channels_last
    assert all(x.is_contiguous(memory_format=last) for x in (images, *(conv.weight for conv in convolutions)))
    assert torch.backends.cudnn.benchmark


def test_without_a_compiler_the_eager_row_remains(monkeypatch):
    def without_compiler(size, num_classes, batch, *, compiled):
        def fails():
            raise RuntimeError('no C++ compiler\nfound')

        return fails if compiled else lambda: None

    monkeypatch.setattr(torch_nts_net, 'make_call', without_compiler)
    monkeypatch.setattr(torch_nts_net, 'set_best_threads', lambda call: 2)
    found = torch_nts.measure(torch_nts.Settings((1,), 64, 3, 1, export=False)).comparisons
    assert [(row.first, row.seconds is None) for row in found] == [
        (torch_nts.THEIRS, False),
        (torch_nts.COMPILED, True),
    ]
    assert found[1].remark == 'no C++ compiler found' and found[1].command == found[0].command
