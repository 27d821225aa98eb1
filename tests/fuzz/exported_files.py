"""Exported networks to damage. Half of the damage comes with the right checksum, as in a file that somebody forged.

Of a forged StableHLO file, the program itself stays as it is: MLIR's reader, which is not made for hostile files,
crashes on some damaged ones (docs/export.md). The metadata and what JAX wraps around the program may be anything.
"""

import importlib.util
import io
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from color_network import write_color_network
from mutations import mutate_bytes, mutate_json

from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.model_file import load_model


def make(folder: Path) -> None:
    """Writes an ONNX file, where onnx is installed, and a StableHLO file."""
    if importlib.util.find_spec('onnx'):
        write_color_network(folder / 'colors.onnx')
    # In a process of its own: JAX starts threads, which a process that forks must not have.
    program = f'import sys; sys.path[:0] = {sys.path!r}; import stablehlo_network as one; one.write(sys.argv[1])'
    subprocess.run([sys.executable, '-c', program, folder / 'colors.stablehlo'], check=True)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damages a file; in half of the cases, the checksum is that of the damaged content."""
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    if not data.startswith(b'PK'):
        return seal(mutate_bytes(data[:-64], rng) + PLACEHOLDER.encode())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document, network = members
    if rng.random() < 0.5:
        members[document] = mutate_json(members[document], rng)
    else:
        start = members[network].index(b'ML\xefR')  # the beginning of the program in MLIR's format
        members[network] = mutate_bytes(members[network][:start], rng) + members[network][start:]
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = PLACEHOLDER.encode()
    return seal(file.getvalue())


def read(path: Path) -> None:
    """Predicts with a file."""
    model = load_model(path)
    side = model.inputs.image_size
    if side <= 64:  # a network may take larger images, which take long
        model.outputs(np.zeros((2, side, side, 3), np.uint8))
