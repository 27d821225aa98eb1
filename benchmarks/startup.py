"""The time from the start of an evaluation process to the predictions of its first batch.

    python -m benchmarks.startup                     # ResNet-50 at 448

Starts `ssanet_jax.main --mode=evaluate` on a run with random weights on drawn birds, first with an empty compilation
cache, then with the programs that the first start cached; the median of the later starts counts. Each process exits
after its first batch, so that the time covers imports, checkpoint, data, compilation and one batch.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from benchmarks import runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.runner import setting
from configs import demo
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log, no_log
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.preprocessing import resolve_preprocessing
from ssanet_jax.runs.run import build_model
from ssanet_jax.runs.workdir import claim_workdir

ROOT = Path(__file__).resolve().parent.parent
# The real command, patched to print the time and exit after the first batch.
TIMED_MAIN = """
import os, runpy, time
import jax
from ssanet_jax.training import evaluate
make = evaluate.make_classify

def make_timed(*arguments):
    classify = make(*arguments)

    def classify_and_exit(*inputs):
        jax.block_until_ready(classify(*inputs))
        print(time.time(), flush=True)
        os._exit(0)

    return classify_and_exit

evaluate.make_classify = make_timed
runpy.run_module('ssanet_jax.main', run_name='__main__', alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network and the number of starts."""

    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    batch: int = setting(16, 'Images in the first batch.')
    rounds: int = setting(3, 'Later starts; their median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The time of the first start over that of later ones."""
    with tempfile.TemporaryDirectory() as folder:
        log('writing a run')
        config = write_run(settings, Path(folder) / 'run')
        start = lambda: seconds_to_first_batch(config, Path(folder) / 'run', Path(folder) / 'cache')
        log('first start')
        first = start()
        later = []
        for number in range(settings.rounds):
            log(f'later start {number + 1} of {settings.rounds}')
            later.append(start())
    where = f'to the first batch of an evaluation, {settings.backbone}, {settings.size}, batch {settings.batch}'
    line = runner.command_line('startup', settings)
    return Findings([Comparison('first start', 'later start', where, line, (first, statistics.median(later)))])


def write_run(settings: Settings, workdir: Path) -> ConfigDict:
    """Writes a finished run of full SSANet with random weights, and returns its configuration."""
    config = demo.get_config()
    config.data.update(train_count=16, test_count=settings.batch, eval_batch_size=settings.batch)
    config.data.update(size=settings.size, resize=settings.size, image_size=settings.size)
    config.model.update(backbone=settings.backbone)
    dataset = load_dataset(config.data)
    model = build_model(config, len(dataset.class_names))
    claim_workdir(workdir, resolve_preprocessing(config), dataset.class_names, dataset.digest)
    _, params, stats = split_model(model)
    checkpoints = Checkpoints(checkpoint_dir(workdir, config.stages[-1].name), writes=True)
    checkpoints.save(1, {'params': params, 'stats': stats, 'position': {'seconds': 0.0}})
    checkpoints.close()
    return config


def seconds_to_first_batch(config: ConfigDict, workdir: Path, cache: Path) -> float:
    """Seconds from the start of an evaluation of the run to its first batch.

    Args:
      config: the configuration from `write_run`.
      workdir: the folder of the run.
      cache: the user's cache folder.
    """
    command = [sys.executable, '-c', TIMED_MAIN, '--config=configs/demo.py', f'--workdir={workdir}', '--mode=evaluate']
    for name in ('train_count', 'test_count', 'eval_batch_size', 'size', 'resize', 'image_size'):
        command.append(f'--config.data.{name}={config.data[name]}')
    environment = os.environ | {'XDG_CACHE_HOME': str(cache), 'JAX_PLATFORMS': jax.default_backend()}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)  # it would take precedence
    start = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'the evaluation did not start: {done.stderr.strip()[-300:]}')
    return float(done.stdout.split()[-1]) - start


if __name__ == '__main__':
    runner.run('startup', Settings, measure)
