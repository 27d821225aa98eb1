"""Exports a trained run to one file (docs/export.md), or to a page for browsers (docs/web.md).

    python -m ssanet_jax.export --workdir=runs/birds --out=birds.onnx
    python -m ssanet_jax.export --workdir=runs/birds --out=birds.stablehlo --format=stablehlo
    python -m ssanet_jax.export --workdir=runs/birds --out=page --format=web --runtime=onnxruntime-web-1.30.0.tgz

Before the file is written, it is run on training images of the run, and the results are compared with those of the run:
the probabilities must agree within 1e-4, and the parts must be the same.
"""

import importlib.util
import sys

from absl import flags

from ssanet_jax import cli
from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.stablehlo_file import StableHloFile
from ssanet_jax.errors import UserError
from ssanet_jax.export.checking import CheckImages, Difference, find_check_images
from ssanet_jax.export.stablehlo_export import export_stablehlo
from ssanet_jax.path_flags import define_path
from ssanet_jax.predictor import Predictor, load
from ssanet_jax.printable import printable
from ssanet_jax.runs.finished_stages import unfinished_line
from ssanet_jax.web.page import check_page_folder, write_page
from ssanet_jax.web.runtime import choose_runtime

_NEEDED = {'onnx': ('onnx', 'onnxruntime'), 'stablehlo': (), 'web': ('onnx', 'onnxruntime')}  # packages by format

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_OUT = define_path('out', None, 'File to write, such as birds.onnx; with --format=web, a folder.', required=True)
_FORMAT = flags.DEFINE_enum('format', 'onnx', list(_NEEDED), 'A file for onnxruntime or for JAX, or a page.')
_WEIGHTS = flags.DEFINE_enum(
    'weights',
    None,
    ['float32', 'float16'],
    'Type of the weights in the file; float16 halves its size. The default is float32, and float16 with --format=web.',
)
_RUNTIME = flags.DEFINE_string(
    'runtime',
    None,
    'With --format=web: the npm package onnxruntime-web (.tgz or unpacked), which is copied into the page; or cdn, for '
    'a page that has the browser load it (docs/web.md).',
)
_IMAGES = define_path('images', None, 'Images to compare on, in place of the training images of the run.')


def main() -> None:
    """Exports the run."""
    _check_packages(_FORMAT.value)
    out = _OUT.value
    is_page = _FORMAT.value == 'web'
    runtime = choose_runtime(_RUNTIME.value) if is_page else None
    (check_page_folder if is_page else cli.check_out)(out)
    predictor = load(_WORKDIR.value)
    if line := unfinished_line(_WORKDIR.value):
        print(printable(line), file=sys.stderr)
    images = find_check_images(predictor, _IMAGES.value)
    print(f'converting, and comparing with the run on {len(images.inputs)} {images.origin}', file=sys.stderr)
    weights = _WEIGHTS.value or ('float16' if is_page else 'float32')
    file, difference = _export(predictor, weights, images)
    size = len(file.data)
    if is_page:
        assert isinstance(file, OnnxFile)
        size = write_page(file, out, runtime)
    else:
        cli.write_out(out, file.data)
    same = f'{difference.num_parts - difference.parts} of {difference.num_parts} parts the same'
    print(
        printable(
            f'{out}: {size / 1e6:.1f} MB; on {len(images.inputs)} {images.origin}, probabilities within '
            f'{difference.probability:.1g} of those of the run, {same}'
        )
    )


def _export(predictor: Predictor, weights: str, images: CheckImages) -> tuple[OnnxFile | StableHloFile, Difference]:
    run = _WORKDIR.value.resolve().name
    if _FORMAT.value == 'stablehlo':
        return export_stablehlo(predictor, run, weights, images)
    from ssanet_jax.export.onnx_export import export_onnx  # needs the optional packages

    data, difference = export_onnx(predictor, run, weights, images)
    return OnnxFile(data, check_content(data, str(_OUT.value))), difference


def _check_packages(format_name: str) -> None:
    """Raises UserError if a package that the format needs is not installed."""
    missing = [name for name in _NEEDED[format_name] if importlib.util.find_spec(name) is None]
    if missing:
        needs = f'--format={format_name} needs {", ".join(missing)}'
        raise UserError(f"{needs}: in a checkout, pip install -e '.[export]'")


if __name__ == '__main__':
    cli.run(main)
