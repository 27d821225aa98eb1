"""Writes the folder of the page: its own files, the network, what the page knows about it, and the runtime."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ssanet_jax.artifact.metadata import Metadata
from ssanet_jax.artifact.onnx_file import OnnxFile
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.explanation import part_name
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.filesystem.paths import check_writable_folder
from ssanet_jax.web import runtime as ort
from ssanet_jax.web.isolation import HEADERS

DESCRIPTION = 'model.json'

_POLICY = "connect-src 'self'"  # in index.html


def write_page(network: OnnxFile, out: Path, runtime: Mapping[str, bytes] | None) -> int:
    """Writes a page that runs an exported network.

    Args:
      network: the exported network.
      out: the folder; an earlier page in it is replaced.
      runtime: the files of onnxruntime-web from `read_runtime`, which are copied into the page; None for a page that
        has the browser load them from `runtime.CDN`.

    Returns:
      The size of the folder's files, in bytes.

    Raises:
      UserError: the folder cannot be written, or holds something else.
    """
    name = f'model.{hashlib.sha256(network.data).hexdigest()[:12]}.onnx'  # so that browsers keep no earlier one
    files = _own_files(external=runtime is None)
    files |= {f'runtime/{ort.FILES[key].name}': content for key, content in (runtime or {}).items()}
    files[name] = network.data
    description = _describe(network.metadata, {'url': name, 'bytes': len(network.data)}, external=runtime is None)
    files[DESCRIPTION] = json.dumps(description, ensure_ascii=False, indent=1).encode()  # last: it names the others
    check_page_folder(out)
    try:
        for file, content in files.items():
            write_atomically(out / file, content)
        _remove_earlier(out, name, keep_runtime=runtime is not None)
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): free some space or give another --out') from error
    return sum(map(len, files.values()))


def check_page_folder(out: Path) -> None:
    """Raises UserError if a page cannot be written in a folder, or if it holds something else than a page."""
    check_writable_folder(out, '--out', f'runtime/{ort.FILES["wasm"].name}.partial')
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise UserError(f'{out} has other files than a page: give a folder that is empty or does not exist as --out')


def _own_files(external: bool) -> dict[str, bytes]:
    folder = resources.files('ssanet_jax.web') / 'page'
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    lines = ['/*', *(f'  {name}: {value}' for name, value in HEADERS.items())]
    files['_headers'] = '\n'.join(lines).encode() + b'\n'  # read by Cloudflare Pages, Netlify and others
    if external:
        policy = f'{_POLICY} {ort.CDN}/'
        files['index.html'] = files['index.html'].replace(_POLICY.encode(), policy.encode())
    return files


def _describe(metadata: Metadata, model: dict[str, Any], external: bool) -> dict[str, Any]:
    """What the page knows about the network."""
    base = ort.CDN if external else 'runtime'
    check = lambda file: {'integrity': file.integrity} if external else {}
    runtime = {
        key: {'url': f'{base}/{file.name}', 'bytes': file.size, **check(file)} for key, file in ort.FILES.items()
    }
    provenance = metadata.provenance
    has_object = provenance.config.get('model', {}).get('proposal', 'ranking') != 'ranking'
    return {
        'class_names': metadata.class_names,
        'part_names': [part_name(part, has_object) for part in range(metadata.parts.num_parts)],
        'preprocessing': dataclasses.asdict(metadata.preprocessing),
        'calibration': dataclasses.asdict(metadata.calibration) if metadata.calibration else None,
        'provenance': {name: getattr(provenance, name) for name in ('version', 'run', 'digest', 'weights')},
        'license': metadata.license,
        'runtime_version': ort.VERSION,
        'files': {'model': model, 'runtime': runtime},
    }


def _remove_earlier(out: Path, model: str, keep_runtime: bool) -> None:
    """Removes the network and the runtime of an earlier page."""
    for path in out.glob('model.*.onnx'):
        if path.name != model:
            path.unlink()
    if not keep_runtime and (out / 'runtime').is_dir():
        shutil.rmtree(out / 'runtime')
