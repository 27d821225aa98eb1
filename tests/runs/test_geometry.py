"""Runs of version 0.1.0 keep its geometry, and new runs record theirs."""

import json

import numpy as np
import pytest
from flax import nnx

from ssanet_jax.data.toy_birds import CLASS_NAMES
from ssanet_jax.errors import UserError
from ssanet_jax.models.anchors import anchor_boxes
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import CONFIG_FILE, read_run
from ssanet_jax.runs.geometry import resolve_geometry
from ssanet_jax.runs.run import build_model
from ssanet_jax.runs.workdir import claim_workdir


@pytest.fixture
def recorded(tiny_config, tmp_path):
    """Reads the configuration of a run that recorded this geometry; with None, of one from before the field existed."""

    def read(geometry):
        tiny_config.model.geometry = geometry or ''
        claim_workdir(tmp_path, tiny_config, CLASS_NAMES)
        if geometry is None:
            content = json.loads((tmp_path / CONFIG_FILE).read_text())
            del content['config']['model']['geometry'], content['checksum']
            (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
        tiny_config.model.geometry = ''
        return read_run(tmp_path)['config']

    return read


@pytest.mark.parametrize(('geometry', 'expected'), [(None, 'legacy'), ('legacy', 'legacy'), ('standard', 'standard')])
def test_a_continued_run_keeps_its_geometry(recorded, tiny_config, geometry, expected):
    run = recorded(geometry)
    config = resolve_geometry(tiny_config, run)
    assert config.model.geometry == expected and tiny_config.model.geometry == ''
    assert 'model.geometry' not in changed_settings(run, config) + changed_settings(run, tiny_config)
    tiny_config.model.geometry = 'standard' if expected == 'legacy' else 'legacy'
    assert 'model.geometry' in changed_settings(run, resolve_geometry(tiny_config, run))


def test_new_runs_record_the_standard_one(tiny_config):
    assert resolve_geometry(tiny_config).model.geometry == 'standard'
    with tiny_config.unlocked():
        del tiny_config.model.geometry  # as in a configuration file that was written for version 0.1.0
    assert resolve_geometry(tiny_config).model.geometry == 'standard'


def test_what_the_network_does(tiny_config):
    networks = {}
    for geometry in ('', 'standard', 'legacy'):
        tiny_config.model.update(backbone='efficientnet_lite0', geometry=geometry)
        model = nnx.eval_shape(lambda: build_model(tiny_config, 3, pretrained=False))
        networks[geometry] = model
    assert networks[''].legacy_geometry is networks['standard'].legacy_geometry is False
    assert networks['standard'].backbone.center(64) == 16 and networks['legacy'].backbone.center(64) == 31.5
    np.testing.assert_array_equal(networks['standard']._anchor_boxes(), anchor_boxes(64))
    np.testing.assert_array_equal(networks['legacy']._anchor_boxes(), anchor_boxes(64, base_size=48))
    tiny_config.model.geometry = 'mirrored'
    with pytest.raises(UserError, match="geometry must be one of standard, legacy; got 'mirrored'"):
        build_model(tiny_config, 3, pretrained=False)
