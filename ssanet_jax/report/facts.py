"""What a report is made of."""

from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.report.answers import Answers
from ssanet_jax.report.curves import Curves
from ssanet_jax.report.responses import Responses
from ssanet_jax.runs.run import Run


class Facts(NamedTuple):
    """All that a report is made of."""

    workdir: Path
    settings: dict[str, Any]  # the run's configuration in its own order
    run: Run
    dataset: Dataset
    answers: Answers  # of the run's network, to the test images
    results: dict[str, Any] | None  # `results.json`; None while the training is not finished
    stages: dict[str, dict[str, Any]]  # `evaluation.json` of each stage that is finished
    steps: dict[str, int]  # done in each stage that has begun
    chosen: int | None  # step of the run's network where validation images chose it so far; None: the newest
    measured: dict[str, dict[str, Any]]  # 'robustness', 'keypoints', where they were measured
    curves: Curves | None
    damaged: list[str]  # what the curves lack, in words
    responses: Responses | None  # of oriented pooling, where it takes part
