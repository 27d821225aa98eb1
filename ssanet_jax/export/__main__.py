"""Exports a trained run to one file that runs without JAX (docs/export.md).

    python -m ssanet_jax.export --workdir=runs/birds --out=birds.onnx

Before the file is written, onnxruntime runs it on training images of the run, and the results are compared with JAX:
the probabilities must agree within 1e-4, and the parts must be the same.
"""

import importlib.util
import sys

from absl import flags

from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.path_flags import define_path
from ssanet_jax.predictor import load
from ssanet_jax.printable import printable
from ssanet_jax.runs.finished_stages import unfinished_line

_NEEDED = {'onnx': ('onnx', 'onnxruntime')}  # packages by format

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_OUT = define_path('out', None, 'File to write, such as birds.onnx.', required=True)
_FORMAT = flags.DEFINE_enum('format', 'onnx', list(_NEEDED), 'Format of the file.')
_WEIGHTS = flags.DEFINE_enum(
    'weights', 'float32', ['float32', 'float16'], 'Type of the weights in the file; float16 halves its size.'
)
_IMAGES = define_path('images', None, 'Images to compare with JAX on, in place of the training images of the run.')


def main() -> None:
    """Exports the run."""
    _check_packages(_FORMAT.value)
    out = _OUT.value
    cli.check_out(out)
    predictor = load(_WORKDIR.value)
    if line := unfinished_line(_WORKDIR.value):
        print(printable(line), file=sys.stderr)
    # They need the optional packages.
    from ssanet_jax.export.checking import find_check_images
    from ssanet_jax.export.onnx_export import describe_size, export_onnx

    images = find_check_images(predictor, _IMAGES.value)
    print(f'converting, and comparing with JAX on {len(images.inputs)} {images.origin}', file=sys.stderr)
    data, difference = export_onnx(predictor, _WORKDIR.value.resolve().name, _WEIGHTS.value, images)
    cli.write_out(out, data)
    same = f'{difference.num_parts - difference.parts} of {difference.num_parts} parts the same'
    print(
        printable(
            f'{out}: {describe_size(out)}; on {len(images.inputs)} {images.origin}, probabilities within '
            f'{difference.probability:.1g} of those of JAX, {same}'
        )
    )


def _check_packages(format_name: str) -> None:
    """Raises UserError if a package that the format needs is not installed."""
    missing = [name for name in _NEEDED[format_name] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'--format={format_name} needs {", ".join(missing)}: pip install "ssanet-jax[export]"')


if __name__ == '__main__':
    cli.run(main)
