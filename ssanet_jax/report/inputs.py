"""The data from which all sections of the report are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.report.curves import LearningCurves
from ssanet_jax.report.part_similarity import PartSimilarity
from ssanet_jax.report.predictions import TestPredictions
from ssanet_jax.report.result_files import RunSummary, StageSummary
from ssanet_jax.runs.run import Run


@dataclass(frozen=True)
class ReportInputs:
    """A run with everything that was recorded, predicted and measured of it.

    Attributes:
      workdir: the run's work directory.
      settings: the run's configuration, in its original order.
      run: the run with its network.
      dataset: the run's data set.
      predictions: the predictions of the run's network for the test images.
      result: `results.json`; None while the training is not finished.
      stage_results: `evaluation.json` of each finished stage.
      steps: number of steps done in each stage that has started.
      best_step: while training, the step of the network that is best on the validation images so far; None
        if the network is that of the newest checkpoint.
      measurements: the files that `ssanet_jax.measure` wrote, by name ('robustness', 'keypoints', 'sharing').
      curves: None if the run has no history.
      damaged_histories: what the curves lack, in words.
      similarity: the similarity of the aligned parts; None without oriented pooling or with too few test images.
    """

    workdir: Path
    settings: Mapping[str, Any]
    run: Run
    dataset: Dataset
    predictions: TestPredictions
    result: RunSummary | None
    stage_results: Mapping[str, StageSummary]
    steps: Mapping[str, int]
    best_step: int | None
    measurements: Mapping[str, Mapping[str, Any]]
    curves: LearningCurves | None
    damaged_histories: list[str]
    similarity: PartSimilarity | None
