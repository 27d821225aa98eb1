"""SSANet in JAX against NTS-Net, the network that it builds on, in PyTorch.

    python -m benchmarks.torch_nts --batch=1 --batch=16     # needs the extra torch-parity

Prediction with ResNet-50 at 448. PyTorch does the work of NTS-Net: one pass of the image, six crops of it resized to
224 (bilinear) and passed in one batch, and the classifier on the concatenation; in inference mode, with BatchNorm
folded into the convolutions as in ours, channels last, with the number of threads that is quickest here and, on a GPU,
the kernels that are (`cudnn.benchmark`). SSANet is whole, with `sharing='image'`, made ready to predict
(`models/inference.py`). Both in one process, in turns; the median of the rounds counts.

The comparison favours PyTorch: its boxes are given, where SSANet proposes its own and suppresses overlaps, and its
images come normalised, where SSANet takes bytes. It runs as it is written and through `torch.compile`, which wants a
C++ compiler on a CPU, and a minute.
"""

import dataclasses

from benchmarks import alone, networks
from benchmarks.alone import setting
from benchmarks.comparisons import Comparison, Findings, at_least, compare
from benchmarks.networks import Size
from benchmarks.programs import why_no_torch
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Say, silent, take_turns

BACKBONE = 'resnet50'  # the one that NTS-Net has
OURS, THEIRS, COMPILED = 'SSANet, image', 'NTS-Net in PyTorch', 'NTS-Net in PyTorch, compiled'
# (first, second, target); the targets are for images of 448.
PAIRS = ((THEIRS, OURS, at_least(2.2)), (COMPILED, OURS, at_least(2.2)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared."""

    batch: tuple[int, ...] = setting((1, 16), 'Images a call.')
    size: int = setting(448, 'Side of the images, pixels.', least=64)
    classes: int = setting(200, 'Number of classes.', least=2)
    rounds: int = setting(5, 'Rounds; the median counts.')
    compile: bool = setting(True, 'Also through torch.compile.')


def measure(settings: Settings, say: Say = silent) -> Findings:
    """NTS-Net's time over SSANet's.

    Raises:
      UserError: PyTorch is not there, or not on the device that JAX has.
    """
    if reason := why_no_torch():
        raise UserError(reason)
    from benchmarks.torch_nts_net import predicting, set_best_threads

    found = []
    for batch in settings.batch:
        say(f'trying numbers of threads, batch {batch}')
        runs = {THEIRS: predicting(settings.size, settings.classes, batch, compiled=False)}
        threads = set_best_threads(runs[THEIRS])
        uncompiled = []
        if settings.compile:
            say(f'compiling {THEIRS}, batch {batch}')
            compiled = predicting(settings.size, settings.classes, batch, compiled=True)
            try:
                compiled()
                runs[COMPILED] = compiled
            except Exception as error:  # of PyTorch's compilers or of the one for C++, of many types
                uncompiled = [Comparison(COMPILED, OURS, '', '', remark=' '.join(str(error).split())[:300])]
        say(f'compiling {OURS}, batch {batch}')
        size = Size(BACKBONE, settings.size, settings.classes, batch)
        runs[OURS] = networks.load('image', size).run
        where, line = str(size), alone.command_line('torch_nts', dataclasses.replace(settings, batch=(batch,)))
        rows = compare(
            take_turns(runs, settings.rounds, say),
            [(first, second, target if settings.size == 448 else None) for first, second, target in PAIRS],
            where=where,
            command=line,
        )
        found += [row._replace(remark=f'threads of PyTorch: {threads}', details={'threads': threads}) for row in rows]
        found += [row._replace(where=where, command=line) for row in uncompiled]
    return Findings(found)


if __name__ == '__main__':
    alone.run('torch_nts', Settings, measure)
