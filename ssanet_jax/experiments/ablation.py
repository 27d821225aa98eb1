"""An ablation study: the rows of a table, each trained with several seeds, measured and compared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.keypoint_layout import merge_left_right
from ssanet_jax.evaluation.keypoints import check_keypoints
from ssanet_jax.experiments.measurements import AFTER, BEFORE, MEASUREMENTS, Options, write_measurement
from ssanet_jax.experiments.paired_comparison import Comparison, McNemar, Summary, compare_seeds, holm, summarize
from ssanet_jax.experiments.run_comparison import EVALUATE_AGAIN, check_same_images, compare_runs
from ssanet_jax.experiments.stage_reuse import reuse_stages
from ssanet_jax.experiments.tables import Row, row_config
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import CONFIG_FILE, RESULTS_FILE, read_json, read_run
from ssanet_jax.runs.geometry import resolve_geometry
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, SUM, ImagePredictions, read_predictions
from ssanet_jax.runs.initial_weights import resolve_pretrained
from ssanet_jax.runs.locations import absolute_locations, absolute_source
from ssanet_jax.runs.preprocessing import (
    recorded_bit_depth,
    recorded_preprocessing,
    resolve_bit_depth,
    resolve_preprocessing,
)
from ssanet_jax.runs.run import dataset_of, load_run
from ssanet_jax.runs.workdir import is_claimed
from ssanet_jax.training.train import train


class Ablation(NamedTuple):
    """The runs of a configuration, stored in `root/seed<k>/<row>`."""

    config: ConfigDict  # a configuration of full SSANet
    root: Path

    def seed_dir(self, seed: int) -> Path:
        """The folder of all runs with one seed, on which one process at a time works."""
        return self.root / f'seed{seed}'

    def workdir(self, row: Row, seed: int) -> Path:
        """The work directory of one run."""
        return self.seed_dir(seed) / row.name


def train_rows(ablation: Ablation, rows: Sequence[Row], seed: int, console: Console) -> None:
    """Trains the unfinished rows with one seed, one after the other.

    A row reuses the first stages that it shares with another one (`stage_reuse.reuse_stages`). All rows and seeds
    prepare their images in the same way and have the same geometry: those of the runs that exist already, if the
    configuration leaves them open.

    Raises:
      UserError: as `train`, naming the row; or a finished run has other settings.
    """
    run = _first_run(ablation)
    resolved = absolute_locations(resolve_pretrained(ablation.config, run))
    resolved = resolve_preprocessing(resolved, recorded_preprocessing(run) if run else None)
    resolved = resolve_geometry(resolved, run)
    resolve_bit_depth(resolved, recorded_bit_depth(run) if run else 0)
    dataset = None
    for number, row in enumerate(rows, 1):
        config = row_config(resolved, row.name)
        config.seed = seed
        workdir = ablation.workdir(row, seed)
        if dataset is None:
            dataset = load_dataset(config.data)
            for each in (resolved, config):
                resolve_bit_depth(each, dataset.bit_depth)
        if is_finished(workdir, config, dataset.digest):
            continue
        console.rule(f'{row.name}, seed {seed} ({number} of {len(rows)})')
        runs = [path.parent for path in sorted(ablation.seed_dir(seed).glob(f'*/{CONFIG_FILE}'))]
        try:
            reused = reuse_stages(config, workdir, runs, dataset.digest)
            if reused:
                console.print(f'reused stages: {", ".join(reused)}', highlight=False)
            train(config, workdir, console)
        except UserError as error:
            raise UserError(f'row {row.name}, seed {seed}: {error}') from error
        jax.clear_caches()  # no later row runs the same programs


def _first_run(ablation: Ablation) -> dict[str, Any] | None:
    """The configuration of the first run that started from the same weights, or None without such a run.

    An earlier version may have trained it.
    """
    model = ablation.config.model
    for path in sorted(ablation.root.glob(f'seed*/*/{CONFIG_FILE}')):
        if is_claimed(path.parent) or (path.parent / RESULTS_FILE).exists():
            config = read_run(path.parent)['config']
            theirs = config['model']
            same_weights = absolute_source(model.pretrained) in ('', absolute_source(theirs['pretrained']))
            if theirs['backbone'] == model.backbone and same_weights:
                return config
    return None


def is_finished(workdir: Path, config: ConfigDict, digest: str) -> bool:
    """Whether a run is finished.

    Args:
      workdir: the run's work directory.
      config: the settings it should have.
      digest: digest of the images it should have been trained on.

    Raises:
      UserError: it is finished, but has other settings or images.
    """
    if not (workdir / RESULTS_FILE).exists():
        return False
    run = read_run(workdir)
    changed = changed_settings(run['config'], config)
    if run['images'] != digest:
        changed.append('data set')
    if changed:
        raise UserError(
            f'{workdir} holds a run with another {", ".join(changed)}: give another --workdir, or the old settings'
        )
    return True


def measure_rows(ablation: Ablation, rows: Sequence[Row], seed: int, names: Sequence[str], console: Console) -> None:
    """Takes the missing measurements of the finished rows, except key points of rows without parts.

    Args:
      ablation: where the runs are.
      rows: the rows to measure.
      seed: the seed of their runs.
      names: keys of `measurements.MEASUREMENTS`.
      console: the console for progress messages.
    """
    for row in rows:
        workdir = ablation.workdir(row, seed)
        last = row_config(ablation.config, row.name).stages[-1].name
        missing = [name for name in names if not _is_measured(workdir, name, last)]
        if not missing or not (workdir / RESULTS_FILE).exists():
            continue
        run = load_run(workdir, data_dir=ablation.config.data.dir or None)
        dataset = dataset_of(run, workdir)
        for name in missing:
            if name == 'keypoints':
                check_keypoints(dataset)
                if 'proposals' not in run.active:
                    continue
            console.print(f'{row.name}, seed {seed}: measuring {name}', highlight=False)
            result = MEASUREMENTS[name].measure(run, dataset, Options())
            write_measurement(workdir, name, run, dataset, result)
        jax.clear_caches()


def _is_measured(workdir: Path, name: str, stage: str) -> bool:
    """Whether a run has this measurement of the last stage, with the default seed of the random angles.

    Measurements of version 0.1.0 are taken again: it counted left and right as different key points, and kept no
    predictions for every image.
    """
    content = read_json(workdir / f'{name}.json', _CURE) or {}
    keypoints = content.get('keypoint_names', [])
    is_merged = merge_left_right(keypoints)[0] == tuple(keypoints)
    files = {metric.predictions_file for metric in METRICS if metric.source == name and metric.head}
    is_complete = is_merged and all((workdir / file).exists() for file in files)
    return is_complete and content.get('stage') == stage and content.get('seed', 0) == Options().seed


class Metric(NamedTuple):
    """One number of a run."""

    name: str
    source: str  # 'results', or the measurement it comes from
    read: Callable[[dict[str, Any]], float]
    percent: bool  # whether it is a share, printed in percent
    head: str | None = None  # for an accuracy, the head whose predictions for every image are kept

    @property
    def file(self) -> str:
        """The file of the run that holds it."""
        return f'{self.source}.json'

    @property
    def predictions_file(self) -> str:
        """The file of the run that holds the predictions for every image."""
        return PREDICTIONS_FILE if self.file == RESULTS_FILE else f'{self.source}.npz'


def _of_parts(read: Callable[[dict[str, Any]], float]) -> Callable[[dict[str, Any]], float]:
    """A number of the network's final boxes: after scale mining if there is any."""

    def read_final(content: dict[str, Any]) -> float:
        boxes = content['boxes']
        return read(boxes.get(AFTER) or boxes[BEFORE])

    return read_final


def _accuracy_of(change: str) -> Callable[[dict[str, Any]], float]:
    return lambda content: content['accuracy'][change]


METRICS: tuple[Metric, ...] = (
    Metric('accuracy', Path(RESULTS_FILE).stem, lambda content: content['accuracy'], True, SUM),
    *(
        Metric(change, 'robustness', _accuracy_of(change), True, change)
        for change in ('rotated by 90', 'rotated by 180', 'rotated by 270', 'rotated at random', 'reduced')
    ),
    Metric('distance, pixels', 'keypoints', _of_parts(lambda m: m['distance']), False),
    Metric('inside the object', 'keypoints', _of_parts(lambda m: m['inside']), True),
    Metric('consistency', 'keypoints', _of_parts(lambda m: m['consistency']), True),
    Metric('consistency, excess', 'keypoints', _of_parts(lambda m: m['consistency'] - m['consistency_shuffled']), True),
)
# The measurements that some metric comes from.
MEASURED = tuple(name for name in MEASUREMENTS if any(metric.source == name for metric in METRICS))


@dataclass(frozen=True)
class RowResult:
    """One metric over the runs of one row."""

    row: Row
    values: dict[int, float]  # {seed: value}; shares in percent
    summary: Summary
    comparison: Comparison | None  # with the row `row.against`, if both have runs that can be compared
    corrected_p: float = math.nan  # Holm's correction over the comparisons of the table
    single: dict[int, McNemar] = field(default_factory=dict)  # {seed: test of the two runs}


def collect(ablation: Ablation, rows: Sequence[Row], seeds: Sequence[int], metric: Metric) -> list[RowResult]:
    """One metric of all runs that have it, with comparisons; rows without any value are left out.

    Accuracies, also those of robustness, are compared image by image, by a bootstrap over seeds and images; runs
    without predictions are left out of the comparison (`runs_without_predictions`). Other metrics are compared by
    Student's t-test over seeds.

    Raises:
      UserError: a file is damaged, or runs to be compared were evaluated on different images.
    """
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        contents = {seed: read_json(ablation.workdir(row, seed) / metric.file, _CURE) for seed in seeds}
        found = {
            seed: _read(metric, content, ablation.workdir(row, seed))
            for seed, content in contents.items()
            if content is not None
        }
        if found:
            values[row.name] = {seed: value * (100 if metric.percent else 1) for seed, value in found.items()}
    results = [
        _row_result(ablation, row, metric, values, {other.name: other for other in rows})
        for row in rows
        if row.name in values
    ]
    corrected = holm([result.comparison.p if result.comparison else math.nan for result in results])
    return [replace(result, corrected_p=p) for result, p in zip(results, corrected)]


def _row_result(
    ablation: Ablation, row: Row, metric: Metric, values: Mapping[str, dict[int, float]], rows: Mapping[str, Row]
) -> RowResult:
    own = values[row.name]
    result = RowResult(row, own, summarize(list(own.values())), None)
    if row.against is None or row.against not in values:
        return result
    if metric.head is None:
        return replace(result, comparison=compare_seeds(own, values[row.against]))
    first: dict[int, ImagePredictions] = {}
    second: dict[int, ImagePredictions] = {}
    for seed in sorted(own.keys() & values[row.against].keys()):
        workdirs = ablation.workdir(row, seed), ablation.workdir(rows[row.against], seed)
        ours, theirs = (_predictions(workdir, metric) for workdir in workdirs)
        if ours is not None and theirs is not None:
            check_same_images(dict(zip(workdirs, (ours, theirs))))
            first[seed], second[seed] = ours, theirs
    if not first:
        return result
    found = compare_runs(list(first.values()), list(second.values()), metric.head)
    return replace(result, comparison=found.comparison, single=dict(zip(first, found.single)))


def _predictions(workdir: Path, metric: Metric) -> ImagePredictions | None:
    path = workdir / metric.predictions_file
    cure = EVALUATE_AGAIN if metric.file == RESULTS_FILE else _CURE
    predictions = read_predictions(path, cure)
    if predictions is not None and metric.head not in predictions.classes:
        raise UserError(f'{path} is damaged, it has no predictions of {metric.head!r}: {cure}')
    return predictions


def finished_runs(ablation: Ablation, rows: Sequence[Row], seeds: Sequence[int]) -> list[Path]:
    """The work directories of the finished runs of a table."""
    workdirs = [ablation.workdir(row, seed) for seed in seeds for row in rows]
    return [workdir for workdir in workdirs if (workdir / RESULTS_FILE).exists()]


def runs_without_predictions(workdirs: Sequence[Path]) -> list[Path]:
    """The runs that an earlier version trained, which cannot be compared before they are evaluated again."""
    return [workdir for workdir in workdirs if not (workdir / PREDICTIONS_FILE).exists()]


def _read(metric: Metric, content: dict[str, Any], workdir: Path) -> float:
    try:
        return float(metric.read(content))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{workdir / metric.file} is damaged: {_CURE}') from error


_CURE = 'move it away and give the same command again'
