"""SSANet in JAX against NTS-Net, on which it builds, in PyTorch.

    python -m benchmarks.torch_nts --batch=1 --batch=16     # needs the extra torch-parity

Prediction with ResNet-50 at 448. PyTorch does the work of NTS-Net: one pass of the image, one of six crops resized to
224 (bilinear), and the classifier on the concatenation; in inference mode, with BatchNorm folded into the convolutions
as in SSANet, channels last, with the fastest number of threads and, on a GPU, the fastest kernels (`cudnn.benchmark`).
SSANet is the full network with `sharing='image'`, optimized for inference (`models/inference.py`): by XLA, and as an
exported ONNX file by onnxruntime and OpenVINO where they are installed. All run interleaved in one process; the median
of the rounds counts.

The comparison favors PyTorch: its boxes are given, while SSANet computes proposals and suppresses overlaps, and its
images are normalized already, while SSANet takes bytes. It runs eagerly and through `torch.compile`, which needs a C++
compiler on a CPU and takes a minute.
"""

import dataclasses

import numpy as np

from benchmarks import artifacts, networks, runner
from benchmarks.artifacts import ONNXRUNTIME, OPENVINO
from benchmarks.comparisons import Comparison, Findings, at_least, at_most, compare
from benchmarks.networks import Size
from benchmarks.programs import torch_problem
from benchmarks.runner import setting
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log, Workload, no_log, time_interleaved

BACKBONE = 'resnet50'  # that of NTS-Net
OURS, THEIRS, COMPILED = 'SSANet, image', 'NTS-Net in PyTorch', 'NTS-Net in PyTorch, compiled'
EXPORTED = {runtime: f'{OURS}, by {runtime}' for runtime in (ONNXRUNTIME, OPENVINO)}
# (first, second, target); the targets are for images of 448.
PAIRS = (
    (THEIRS, OURS, at_least(2.2)),
    (COMPILED, OURS, at_least(2.2)),
    (COMPILED, EXPORTED[ONNXRUNTIME], at_least(2.4)),
    (COMPILED, EXPORTED[OPENVINO], None),
    (EXPORTED[ONNXRUNTIME], OURS, at_most(1)),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes to compare."""

    batch: tuple[int, ...] = setting((1, 16), 'Images per call.')
    size: int = setting(448, 'Side of the images, pixels.', minimum=64)
    num_classes: int = setting(200, 'Number of classes.', minimum=2, alias='classes')
    rounds: int = setting(5, 'Rounds; the median counts.')
    compile: bool = setting(True, 'Also through torch.compile.')
    export: bool = setting(True, 'Also the exported network, by onnxruntime and OpenVINO.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """NTS-Net's time over SSANet's.

    Raises:
      UserError: PyTorch is not installed, or does not support the device of JAX.
    """
    if reason := torch_problem():
        raise UserError(reason)
    from benchmarks.torch_nts_net import make_call, set_best_threads

    found = []
    for batch in settings.batch:
        log(f'trying numbers of threads, batch {batch}')
        runs = {THEIRS: make_call(settings.size, settings.num_classes, batch, compiled=False)}
        threads = set_best_threads(runs[THEIRS])
        uncompiled = []
        if settings.compile:
            log(f'compiling {THEIRS}, batch {batch}')
            compiled = make_call(settings.size, settings.num_classes, batch, compiled=True)
            try:
                compiled()
                runs[COMPILED] = compiled
            except Exception as error:  # PyTorch's compilers and the C++ compiler raise many types
                uncompiled = [Comparison(COMPILED, OURS, '', '', remark=' '.join(str(error).split())[:300])]
        log(f'compiling {OURS}, batch {batch}')
        size = Size(BACKBONE, settings.size, settings.num_classes, batch)
        runs[OURS] = networks.load('image', size).run
        missing = {}
        if settings.export:
            log(f'exporting {OURS}, batch {batch}')
            exported, missing = _exported(size)
            runs |= exported
        where, line = str(size), runner.command_line('torch_nts', dataclasses.replace(settings, batch=(batch,)))
        rows = compare(
            time_interleaved(runs, settings.rounds, log),
            [(first, second, target if settings.size == 448 else None) for first, second, target in PAIRS],
            where=where,
            command=line,
            images=batch,
        )
        found += [row._replace(remark=f'PyTorch threads: {threads}', details={'threads': threads}) for row in rows]
        found += [row._replace(where=where, command=line) for row in uncompiled]
        found += [Comparison(COMPILED, EXPORTED[name], where, line, remark=why) for name, why in missing.items()]
    return Findings(found)


def _exported(size: Size) -> tuple[dict[str, Workload], dict[str, str]]:
    """The network of `OURS` in every runtime that is installed, and why others are missing."""
    images = np.random.default_rng(0).integers(0, 256, (max(size.batch, 2), size.size, size.size, 3), np.uint8)
    try:
        file = artifacts.export(networks.make_predictor('image', size), images, 'float32')
    except UserError as error:
        return {}, {ONNXRUNTIME: str(error)}
    runtimes = artifacts.runtimes(file, images[: size.batch])
    return {EXPORTED[name]: workload for name, workload in runtimes.workloads.items()}, runtimes.missing


if __name__ == '__main__':
    runner.run('torch_nts', Settings, measure)
