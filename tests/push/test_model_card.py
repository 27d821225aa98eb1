"""The model card: its numbers come from the files of the run."""

import dataclasses

import numpy as np
import pytest

from ssanet_jax.export.description import describe
from ssanet_jax.predictor import Predictor
from ssanet_jax.push.model_card import write_model_card
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.held_out import HeldOutPredictions
from ssanet_jax.runs.run import load_run

pytest.importorskip('huggingface_hub', reason='needs huggingface_hub')


def expected_calibration_error(confidence, correct):
    """The definition, bin by bin."""
    total = 0.0
    for number in range(15):
        inside = [number / 15 < value <= (number + 1) / 15 for value in confidence]
        if any(inside):
            gap = np.mean(confidence[inside]) - np.mean(correct[inside])
            total += sum(inside) / len(inside) * abs(gap)
    return total


def test_calibration_and_robustness_are_those_of_the_run(workdir):
    run = load_run(workdir)
    rng = np.random.default_rng(0)
    classes = len(run.class_names)
    held_out = HeldOutPredictions(
        log_probabilities=np.log(rng.dirichlet(np.full(classes, 0.3), 40)).astype(np.float16),
        labels=rng.integers(0, classes, 40).astype(np.int32),
        images=np.arange(40, dtype=np.int32),
        temperature=1.5,
        split='train',
    )
    run = dataclasses.replace(run, held_out=held_out)
    measured = {'accuracy': {'original': 0.5, 'rotated': 0.25}, 'drop': {'original': 0.0, 'rotated': 25.0}}
    write_json(
        workdir / 'robustness.json', measured | {'examples': 30, 'seed': 0, 'stage': run.stage, 'dataset': 'toy'}
    )
    metadata = describe(Predictor.from_run(run), 'birds', 'float32')
    card = write_model_card(run, workdir, metadata, 'me/birds', '', pictures=False)

    powers = np.exp(held_out.log_probabilities.astype(np.float64) / 1.5)
    probabilities = powers / powers.sum(-1, keepdims=True)
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == held_out.labels
    error = 100 * expected_calibration_error(confidence, correct)
    assert 'temperature 1.50, which was fitted to 40 images' in card and 'training images, in folds' in card
    assert f'the expected calibration error is {error:.1f} percentage points' in card
    assert f'That holds for {100 * (confidence < 0.5).mean():.1f} % of these images' in card
    assert 'stranger than 95 % of these images' in card and 'One in 20 photos' in card
    assert '| rotated | 25.0 | 25.0 |' in card and 'Accuracy on 30 test images' in card
    assert 'has not stated a license' in card and 'parts.png' not in card
    few = dataclasses.replace(held_out, **{
        name: getattr(held_out, name)[:5] for name in ('log_probabilities', 'labels', 'images')
    })  # fmt: skip
    run = dataclasses.replace(run, held_out=few)
    card = write_model_card(run, workdir, metadata, 'me/birds', 'mit', pictures=True)
    assert '`unsure` is always empty' in card and 'should be checked' not in card
    assert '![Parts of test images](parts.png)' in card and '`mit`' in card
