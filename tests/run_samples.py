"""The files of finished runs, without training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.runs.files import RESULTS_FILE, write_json
from ssanet_jax.runs.image_predictions import SUM, ImagePredictions
from ssanet_jax.runs.workdir import claim_workdir


def image_predictions(correct: Sequence[bool] | np.ndarray, images: str = 'images') -> ImagePredictions:
    """Predictions for images of class 0.

    Args:
      correct: whether each is correct, `[n]`.
      images: identifies the images.
    """
    correct = np.asarray(correct, bool)
    return ImagePredictions(
        labels=np.zeros(len(correct), np.int32),
        unreadable=np.zeros(len(correct), bool),
        classes={SUM: np.where(correct, 0, 1).astype(np.int32)},
        log_probabilities={},
        image_set=images,
    )


def write_finished_run(workdir: Path, config: ConfigDict, finished: bool = True) -> Path:
    """Claims a work directory for a configuration, with empty results if the run is finished; returns the directory."""
    dataset = load_dataset(config.data)
    claim_workdir(workdir, config, dataset.class_names, dataset.digest)
    if finished:
        write_json(workdir / RESULTS_FILE, {})
    return workdir
