"""The work of NTS-Net in PyTorch is the work that it should be."""

import pytest

torch = pytest.importorskip('torch', reason='needs the extra torch-parity')

from benchmarks import torch_nts_net  # noqa: E402
from benchmarks.torch_nts_net import NTSNet, predicting, set_best_threads  # noqa: E402


def test_image_and_six_crops_of_half_its_side_pass_and_four_are_read():
    network = NTSNet(64, 3).eval()
    seen = []
    network.backbone.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits = network(images)
    (whole, whole_map), (crops, crop_maps) = seen
    assert whole is images and crops.shape == (12, 3, 32, 32) and logits.shape == (2, 3)
    # Image by image, and each crop has the corners of its box.
    for index, (y0, x0, y1, x1) in enumerate(network.boxes):
        crop = crops[6 + index]
        torch.testing.assert_close(crop[:, 0, 0], images[1, :, y0, x0])
        torch.testing.assert_close(crop[:, -1, -1], images[1, :, y1 - 1, x1 - 1])
    averages = [whole_map[1].mean((1, 2)), *(crop_maps[6 + index].mean((1, 2)) for index in range(4))]
    expected = network.classifier.weight @ torch.cat(averages) + network.classifier.bias
    torch.testing.assert_close(logits[1], expected)


def test_boxes_lie_in_the_image():
    for y0, x0, y1, x1 in torch_nts_net.BOXES:
        assert 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1
    assert len(torch_nts_net.BOXES) == torch_nts_net.PROPOSALS


def test_the_quickest_number_of_threads_stays(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(torch_nts_net.os, 'sched_getaffinity', lambda _: range(4))
    pace = {2: 1.0}  # any other number takes longer
    monkeypatch.setattr(torch_nts_net, '_time', lambda once: pace.get(torch.get_num_threads(), 2.0))
    try:
        assert set_best_threads(lambda: None) == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_call_predicts():
    assert predicting(64, 5, 1, compiled=False)().shape == (1, 5)
