"""A series of runs: the rows of a table, each with several seeds, and what they say together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.keypoints import check_keypoints
from ssanet_jax.experiments.measurements import AFTER, BEFORE, measure_keypoints, measure_robustness, write_measurement
from ssanet_jax.experiments.paired_comparison import Comparison, Summary, compare, summarise
from ssanet_jax.experiments.shared_stages import take_over
from ssanet_jax.experiments.tables import Row, row_config
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import CONFIG_FILE, RESULTS_FILE, read_json, read_run
from ssanet_jax.runs.preprocessing import resolve_preprocessing
from ssanet_jax.runs.run import dataset_of, load_run
from ssanet_jax.training import loop

MEASUREMENTS = {'robustness': measure_robustness, 'keypoints': measure_keypoints}


class Series(NamedTuple):
    """Where the runs of a configuration lie: `root/seed<k>/<row>`."""

    config: ConfigDict  # of full SSANet
    root: Path

    def seed_dir(self, seed: int) -> Path:
        """The folder of all runs with one seed, which one process at a time works on."""
        return self.root / f'seed{seed}'

    def workdir(self, row: Row, seed: int) -> Path:
        """The work directory of one run."""
        return self.seed_dir(seed) / row.name


def train_rows(series: Series, rows: Sequence[Row], seed: int, console: Console) -> None:
    """Trains what is missing of some rows with one seed, one after the other.

    A row takes over the first stages that it shares with another one (`shared_stages.take_over`).

    Raises:
      UserError: as `loop.train`, naming the row; or a finished run had other settings.
    """
    dataset = None
    for number, row in enumerate(rows, 1):
        config = row_config(series.config, row.name)
        config.seed = seed
        workdir = series.workdir(row, seed)
        if dataset is None:
            dataset = load_dataset(config.data)
        if finished(workdir, config, dataset.digest):
            continue
        console.rule(f'{row.name}, seed {seed} ({number} of {len(rows)})')
        runs = [path.parent for path in sorted(series.seed_dir(seed).glob(f'*/{CONFIG_FILE}'))]
        try:
            taken = take_over(resolve_preprocessing(config), workdir, runs, dataset.digest)
            if taken:
                console.print(f'taken over: {", ".join(taken)}', highlight=False)
            loop.train(config, workdir, console)
        except UserError as error:
            raise UserError(f'row {row.name}, seed {seed}: {error}') from error
        jax.clear_caches()  # the programs of the next row are its own


def finished(workdir: Path, config: ConfigDict, images: str) -> bool:
    """Whether a run has come to its end.

    Raises:
      UserError: it has, but with other settings or images than these.
    """
    if not (workdir / RESULTS_FILE).exists():
        return False
    run = read_run(workdir)
    changed = changed_settings(run['config'], config)
    if run['images'] != images:
        changed.append('data set')
    if changed:
        raise UserError(
            f'{workdir} holds a run with another {", ".join(changed)}: give another --workdir, or the old settings'
        )
    return True


def measure_rows(series: Series, rows: Sequence[Row], seed: int, names: Sequence[str], console: Console) -> None:
    """Measures what is missing of some trained rows: each `<name>.json`; rows without parts have no key points."""
    for row in rows:
        workdir = series.workdir(row, seed)
        last = row_config(series.config, row.name).stages[-1].name
        missing = [name for name in names if not _measured(workdir / f'{name}.json', last)]
        if not missing or not (workdir / RESULTS_FILE).exists():
            continue
        run = load_run(workdir, data_dir=series.config.data.dir)
        dataset = dataset_of(run, workdir)
        for name in missing:
            if name == 'keypoints':
                check_keypoints(dataset)
                if 'proposals' not in run.active:
                    continue
            console.print(f'{row.name}, seed {seed}: measuring {name}', highlight=False)
            write_measurement(workdir, name, run, dataset, MEASUREMENTS[name](run, dataset))
        jax.clear_caches()


def _measured(path: Path, stage: str) -> bool:
    """Whether a file holds what `measure_rows` would measure: of the last stage, and on the same angles."""
    content = read_json(path, _CURE) or {}
    return content.get('stage') == stage and content.get('seed', 0) == 0


class Figure(NamedTuple):
    """One number of a run."""

    name: str
    file: str
    read: Callable[[dict[str, Any]], float]
    points: bool  # whether it is a share, printed in percent


def _parts(read: Callable[[dict[str, Any]], float]) -> Callable[[dict[str, Any]], float]:
    """A number of the boxes that the network ends with: after scale mining, where there is one."""

    def last(content: dict[str, Any]) -> float:
        measured = content['boxes']
        return read(measured.get(AFTER) or measured[BEFORE])

    return last


def _accuracy_of(change: str) -> Callable[[dict[str, Any]], float]:
    return lambda content: content['accuracy'][change]


FIGURES: tuple[Figure, ...] = (
    Figure('accuracy', RESULTS_FILE, lambda content: content['accuracy'], True),
    *(
        Figure(change, 'robustness.json', _accuracy_of(change), True)
        for change in ('rotated by 90', 'rotated by 180', 'rotated by 270', 'rotated at random', 'reduced')
    ),
    Figure('distance, pixels', 'keypoints.json', _parts(lambda m: m['distance']), False),
    Figure('inside the object', 'keypoints.json', _parts(lambda m: m['inside']), True),
    Figure('consistency', 'keypoints.json', _parts(lambda m: m['consistency']), True),
    Figure(
        'consistency, excess', 'keypoints.json', _parts(lambda m: m['consistency'] - m['consistency_shuffled']), True
    ),
)


class Line(NamedTuple):
    """What the runs of one row say of one figure."""

    row: Row
    values: dict[int, float]  # {seed: figure}; shares in percent
    summary: Summary
    comparison: Comparison | None  # with the row that `row.against` names, where both have runs


def collect(series: Series, rows: Sequence[Row], seeds: Sequence[int], figure: Figure) -> list[Line]:
    """One figure of all runs that have it, row by row; rows without any are left out."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        contents = {seed: read_json(series.workdir(row, seed) / figure.file, _CURE) for seed in seeds}
        values = {
            seed: _number(figure, content, series.workdir(row, seed))
            for seed, content in contents.items()
            if content is not None
        }
        if values:
            found[row.name] = {seed: value * (100 if figure.points else 1) for seed, value in values.items()}
    return list(_lines(rows, found))


def _lines(rows: Sequence[Row], found: Mapping[str, dict[int, float]]) -> Iterator[Line]:
    for row in rows:
        if row.name in found:
            values = found[row.name]
            comparison = compare(values, found[row.against]) if row.against in found else None
            yield Line(row, values, summarise(list(values.values())), comparison)


def _number(figure: Figure, content: dict[str, Any], workdir: Path) -> float:
    try:
        return float(figure.read(content))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{workdir / figure.file} is damaged: {_CURE}') from error


_CURE = 'remove it and give the same command again'
