"""StableHLO files that are cut, altered, forged, or not ours end with one line, and run no code."""

import io
import random
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import DisabledSafetyCheck
from stablehlo_network import METADATA_OF_COLORS, SIDE, colors, serialize

import ssanet_jax
from ssanet_jax import UserError
from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.stablehlo_file import METADATA, NETWORK, pack, read_content
from ssanet_jax.artifact.stablehlo_predictor import StableHloPredictor


@pytest.fixture(scope='module')
def network():
    return serialize(colors)


@pytest.fixture(scope='module')
def content(network):
    return pack(network, METADATA_OF_COLORS).data


def refusal(content):
    """The line with which a file is refused; '' if it is not."""
    try:
        StableHloPredictor(read_content(content, 'file'), 'file').outputs(np.zeros((2, SIDE, SIDE, 3), np.uint8))
    except UserError as error:
        line = str(error)
        assert '\n' not in line and ':' in line and 'file' in line
        return line
    return ''


def archive(members, comment=PLACEHOLDER, compression=zipfile.ZIP_STORED):
    """A sealed zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as written:
        for name, member in members.items():
            written.writestr(name, member)
        written.comment = comment.encode()
    return seal(file.getvalue())


def test_the_file_as_written(content, tmp_path):
    path = tmp_path / 'any_name'
    path.write_bytes(content)
    model = ssanet_jax.load(path)
    assert type(model) is ssanet_jax.StableHloPredictor and not model.detects_novelty
    photo = np.zeros((20, 30, 3), np.uint8)
    photo[..., 1] = 200
    prediction = next(model.predict(photo))
    assert prediction.label == 'green' and prediction.boxes.shape == (0, 4)
    assert prediction.score == pytest.approx(np.exp(4) / (np.exp(4) + 2), rel=1e-5)
    with zipfile.ZipFile(path) as readable_by_anyone:
        assert readable_by_anyone.namelist() == [METADATA, NETWORK] and readable_by_anyone.testzip() is None
    assert pack(read_content(content, 'file').network, METADATA_OF_COLORS).data == content


def test_every_cut_and_every_flipped_bit_is_noticed(content, tmp_path):
    rng = random.Random(0)
    path = tmp_path / 'birds.stablehlo'
    for trial in range(200):
        data = bytearray(content)
        if trial % 3 == 0:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            ssanet_jax.load(path)
        assert '\n' not in str(caught.value) and str(path) in str(caught.value)


def test_altered_wrappers_with_the_right_checksum_crash_nothing(network):
    """Of what JAX wraps around a program, such as the types of its arguments, every byte may be anything.

    The program itself is left out: MLIR's reader crashes on some forged ones, as `docs/export.md` says.
    """
    program = jax.export.deserialize(bytearray(network)).mlir_module_serialized
    start = network.index(program)
    wrapper = [*range(start), *range(start + len(program), len(network))]
    rng, refused = random.Random(0), 0
    for _ in range(100):
        data = bytearray(network)
        for _ in range(rng.randrange(1, 4)):
            data[rng.choice(wrapper)] ^= 1 << rng.randrange(8)
        refused += bool(refusal(pack(bytes(data), METADATA_OF_COLORS).data))
    assert refused > 50


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda document, network: archive({METADATA: document, NETWORK: b''}), 'cannot read'),
        (lambda document, network: archive({METADATA: document, NETWORK: b'\x80\x04]'}), 'cannot read'),
        (lambda document, network: archive({METADATA: b'{', NETWORK: network}), 'metadata are damaged'),
        (lambda document, network: archive({METADATA: b'[]', NETWORK: network}), 'metadata are damaged'),
        (lambda document, network: archive({METADATA: b'[' * 10**5, NETWORK: network}), 'metadata are damaged'),
        (lambda document, network: archive({METADATA: document}), 'other files'),
        (lambda document, network: archive({METADATA: document, NETWORK: network, 'a': b''}), 'other files'),
        (lambda document, network: archive({METADATA: document, f'../{NETWORK}': network}), 'other files'),
        (
            lambda document, network: archive(
                {METADATA: document, NETWORK: bytes(10**7)}, compression=zipfile.ZIP_DEFLATED
            ),
            'compressed',
        ),
        (lambda document, network: seal(b'PK\x03\x04' + bytes(200)), 'archive is damaged'),
        (lambda document, network: b'PK\x03\x04', 'did not write'),
    ],
)
def test_other_archives_are_refused(content, network, make, words):
    with zipfile.ZipFile(io.BytesIO(content)) as written:
        document = written.read(METADATA)
    assert refusal(archive({METADATA: document, NETWORK: network})) == ''
    assert words in refusal(make(document, network))


def foreign(images):
    """Calls a function of the machine that runs the program."""
    jax.ffi.ffi_call('steal', jax.ShapeDtypeStruct((), np.float32), has_side_effect=True)()
    return colors(images)


def test_programs_that_reach_outside_are_refused(content):
    checks = [DisabledSafetyCheck.custom_call('steal')]
    forged = pack(serialize(foreign, checks=checks), METADATA_OF_COLORS).data
    assert "operations that no export has (a call of 'steal')" in refusal(forged)


def spread(images):
    total = jax.lax.psum(images.astype(jnp.float32).sum((0, 1, 2)), 'i')
    return colors(images) | {'embedding': colors(images)['embedding'] + total}


def test_programs_that_wait_for_other_devices_are_refused():
    mesh = jax.sharding.Mesh(jax.devices('cpu')[:1], ('i',))
    spec = jax.sharding.PartitionSpec()
    function = jax.shard_map(spread, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert 'operations that no export has' in refusal(pack(serialize(function), METADATA_OF_COLORS).data)


@pytest.mark.parametrize(
    ('function', 'arguments', 'words'),
    [
        (colors, dict(dtype=np.float32), 'other inputs or outputs'),
        (lambda one, other: colors(one), {}, 'other inputs or outputs'),
        (lambda images: tuple(colors(images).values()), {}, 'other inputs or outputs'),
        (lambda images: {'logits': colors(images)['logits']}, {}, 'other inputs or outputs'),
        (lambda images: colors(images) | {'logits': images.astype(jnp.int32)}, {}, 'other inputs or outputs'),
        (lambda images: colors(images) | {'logits': colors(images)['logits'][:, :2]}, {}, 'the shape [2, 2]'),
        (colors, dict(platforms=('tpu',)), 'was exported for tpu'),
    ],
)
def test_other_networks_are_refused(function, arguments, words):
    shapes = [(SIDE, SIDE, 3)] * function.__code__.co_argcount
    assert words in refusal(pack(serialize(function, *shapes, **arguments), METADATA_OF_COLORS).data)
