"""Small files that ask for much memory or time, or are no files at all; written when a test needs them."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch_pickles import tensor, text, tuple_of

Write = Callable[[Path], None]

_WEIGHT = np.zeros(16, np.float32)
_TENSOR = tensor('0', 'FloatStorage', _WEIGHT)
_REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'


# Weights.


def torch_zip(content: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A torch file whose pickle, without its frame, is `content`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + content + b'.')
        for key, data in (storages or {'0': _WEIGHT.tobytes()}).items():
            archive.writestr(f'archive/data/{key}', data)
    return file.getvalue()


def torch_legacy(content: bytes) -> bytes:
    """The same in torch's older format."""
    head = b''.join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
    keys = pickle.dumps(['0'], 2)
    return head + b'\x80\x02' + content + b'.' + keys + struct.pack('<q', 16) + _WEIGHT.tobytes()


def _named(value: bytes, before: bytes = b'') -> bytes:
    """A dictionary with one entry; `before` leaves nothing on the stack."""
    return before + b'}' + text('weight') + value + b's'


def _doubled(levels: int) -> bytes:
    """Nested pairs of the same object: 2**levels leaves in a few bytes."""
    return text('x') + b'q\x00' + b'h\x00\x86q\x00'.replace(b'\x86', b'h\x00\x86') * levels


def _copied_lists(calls: int) -> bytes:
    """A shape of very many numbers, which each of many tensors would copy."""
    storage = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', text('0'), text('cpu'), b'K\x10')
    shape = b'](' + b'K\x01' * 60_000 + b'eq\x01' + b'0'
    function, base = _REBUILD + b'q\x020', storage + b'Qq\x030'
    one = b'h\x02(h\x03K\x00h\x01h\x01\x89}tR'
    return _named(b'](' + one * calls + b'e' + b'0' + _TENSOR, shape + function + base)


def _copied_dictionaries(calls: int) -> bytes:
    pairs = b'](' + b''.join(text(f'{i}') + b'K\x01\x86' for i in range(20_000)) + b'eq\x010'
    function = b'ccollections\nOrderedDict\nq\x020'
    return _named(b'](' + b'h\x02h\x01\x85R' * calls + b'e0' + _TENSOR, pairs + function)


def _colliding_keys(count: int) -> bytes:
    """Integers with the same hash, so that a dictionary takes quadratic time."""
    step = 2**61 - 1
    keys = b''.join(b'\x8a\x0a' + (i * step).to_bytes(10, 'little') + b'K\x00' for i in range(count))
    return _named(b'}(' + keys + b'u0' + _TENSOR)


def _deep_tuples(levels: int) -> bytes:
    return _named(b')' + b'\x85' * levels + b'0' + _TENSOR)


def _many_views(count: int) -> bytes:
    """One tensor under very many names."""
    entries = b''.join(text(f'layer{i % 9}.{i}.conv1.weight') + b'h\x01' for i in range(count))
    return b'}(' + text('weight') + _TENSOR + b'q\x01' + entries + b'u'


def _shared_storage(count: int) -> tuple[bytes, dict[str, bytes]]:
    big = np.zeros(2**20, np.float32)
    return _many_views(count).replace(_TENSOR, tensor('0', 'FloatStorage', big)), {'0': big.tobytes()}


def _wide_string(size: int) -> bytes:
    data = b'a' * size + '\U0001f426'.encode()
    return _named(b'X' + struct.pack('<I', len(data)) + data + b'0' + _TENSOR)


def _long_names(count: int) -> bytes:
    entries = b''.join(text('a.' * 1500 + str(i)) + b'h\x01' for i in range(count))
    return b'}(' + text('weight') + _TENSOR + b'q\x01' + entries + b'u'


def _stretched() -> bytes:
    storage = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', text('0'), text('cpu'), b'K\x10')
    huge = b'\x8a\x05' + (2**36).to_bytes(5, 'little')
    return _named(_REBUILD + tuple_of(storage + b'Q', b'K\x00', huge + b'\x85', b'K\x00\x85', b'\x89', b'}') + b'R')


def _huge_storage() -> bytes:
    size = b'\x8a\x06' + (2**40).to_bytes(6, 'little')
    storage = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', text('0'), text('cpu'), size)
    return _named(_REBUILD + tuple_of(storage + b'Q', b'K\x00', size + b'\x85', b'K\x01\x85', b'\x89', b'}') + b'R')


def _huge_numbers(count: int) -> bytes:
    """A shape of a few enormous integers, whose product takes long."""
    storage = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', text('0'), text('cpu'), b'K\x10')
    number = b'\x8b' + struct.pack('<i', count) + b'\x7f' * count
    shape = number + b'q\x010' + b'(' + b'h\x01' * 30 + b't'
    strides = b'(' + b'K\x00' * 30 + b't'
    return _named(_REBUILD + tuple_of(storage + b'Q', b'K\x00', shape, strides, b'\x89', b'}') + b'R')


def _nested_key() -> bytes:
    """The key of a storage that is a tree of 2**60 strings."""
    pid = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', b'h\x00', text('cpu'), b'K\x10')
    return _named(pid + b'Q0' + _TENSOR, _doubled(60) + b'0')


def _nested_global() -> bytes:
    return _named(b'h\x00h\x00\x93', _doubled(60) + b'0')


def _many_entries(count: int) -> bytes:
    """An archive with the directory of very many files, all at the same place."""
    whole = torch_zip(_named(_TENSOR))
    start = whole.index(b'PK\x01\x02')
    end = whole.rindex(b'PK\x05\x06')
    entry = lambda i: (
        struct.pack('<IHHHHHHIIIHHHHHII', 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0) + b'%06d' % i
    )
    extra = b''.join(map(entry, range(count)))
    total = end - start + len(extra)
    tail = struct.pack('<IHHHHIIH', 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, total, start, 0)
    return whole[:end] + extra + tail


def _packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(300_000_000))
    return file.getvalue()


def _repeated_storage() -> bytes:
    """Many storages whose entries in the archive are the same bytes."""
    count, size = 2000, 400_000
    keys = [str(i) for i in range(count)]
    array = np.zeros(size // 4, np.float32)
    content = b'\x80\x02}(' + b''.join(text(f'w{k}') + tensor(k, 'FloatStorage', array) for k in keys) + b'u.'
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/data/0', array.tobytes())
        first = archive.getinfo('archive/data/0')
        for key in keys[1:]:
            info = zipfile.ZipInfo(f'archive/data/{key}')
            for name in ('header_offset', 'CRC', 'compress_size', 'file_size'):
                setattr(info, name, getattr(first, name))
            archive.filelist.append(info)
    return file.getvalue()


def safetensors(header: bytes, data: bytes = b'') -> bytes:
    return struct.pack('<Q', len(header)) + header + data


def _empty_tensors(count: int) -> bytes:
    entry = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}
    return safetensors(json.dumps({f't{i}': entry for i in range(count)}).encode())


def weights() -> dict[str, bytes]:
    """Files of weights, by name."""
    pickles = {
        'copied_lists': _copied_lists(16_000),
        'copied_dictionaries': _copied_dictionaries(3000),
        'colliding_keys': _colliding_keys(60_000),
        'deep_tuples': _deep_tuples(300_000),
        'many_views': _many_views(100_000),
        'many_opcodes': _named(b'](' + b'K\x01' * 4_000_000 + b'e0' + _TENSOR),
        'many_containers': _named(b'](' + b']' * 3_000_000 + b'e0' + _TENSOR),
        'wide_string': _wide_string(60_000_000),
        'long_names': _long_names(3000),
        'stretched': _stretched(),
        'huge_storage': _huge_storage(),
        'huge_numbers': _huge_numbers(300_000),
        'nested_key': _nested_key(),
        'nested_global': _nested_global(),
    }
    files = {f'{name}.pth': torch_zip(content) for name, content in pickles.items()}
    files |= {f'{name}_legacy.pth': torch_legacy(content) for name, content in pickles.items()}
    shared = torch_zip(*_shared_storage(20_000))
    return files | {
        'shared_storage.pth': shared,
        'many_entries.pth': _many_entries(400_000),
        'packed.pth': _packed(),
        'repeated_storage.pth': _repeated_storage(),
        'huge_header.safetensors': safetensors(b'{"a":' + b' ' * 90_000_000 + b'1}'),
        'declared_header.safetensors': struct.pack('<Q', 2**40) + b'{}',
        'declared_tensor.safetensors': safetensors(
            b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
        ),
        'empty_tensors.safetensors': _empty_tensors(1_000_000),
        'deep_header.safetensors': safetensors(b'{"a":' + b'[' * 5_000_000),
    }


# Images.


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width: int, height: int, mode: str = 'RGB', depth: int = 8, chunks: bytes = b'') -> bytes:
    """A PNG of zeros, compressed a thousandfold."""
    color, channels = {'L': (0, 1), 'RGB': (2, 3), 'P': (3, 1), 'RGBA': (6, 4)}[mode]
    row = 1 + (width * channels * depth + 7) // 8
    head = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 0)
    chunks = (_png_chunk(b'PLTE', bytes(6)) if mode == 'P' else b'') + chunks
    pixels = _png_chunk(b'IDAT', _packed_zeros(row * height))
    return b'\x89PNG\r\n\x1a\n' + _png_chunk(b'IHDR', head) + chunks + pixels + _png_chunk(b'IEND', b'')


def _packed_zeros(count: int) -> bytes:
    """`zlib.compress(bytes(count))`, but with a single block that is compressed once and repeated."""
    block = 2**20
    packer = zlib.compressobj(9, wbits=-15)
    repeated = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compress(bytes(count % block), 9, wbits=-15)
    adler = (count % 65521) << 16 | 1
    return b'\x78\xda' + repeated * (count // block) + rest + struct.pack('>I', adler)


def _directory(count: int, size: int) -> bytes:
    """A TIFF directory of very many tags, each of which is the same large piece of the file."""
    tags = b''.join(struct.pack('<HHII', 1000 + i, 1, size, 0) for i in range(count))
    body = b'II*\0' + struct.pack('<I', 8) + struct.pack('<H', count) + tags + struct.pack('<I', 0)
    return body + bytes(max(0, size - len(body)))


def _tiff(width: int, height: int) -> bytes:
    """An uncompressed TIFF that declares more than it has."""
    tags = (
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, width * height),
    )
    body = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags)
    return b'II*\0' + struct.pack('<I', 8) + struct.pack('<H', len(tags)) + body + struct.pack('<I', 0)


def _gif(width: int, height: int) -> bytes:
    head = b'GIF89a' + struct.pack('<HHBBB', width, height, 0x80, 0, 0) + bytes(6)
    return head + b',' + struct.pack('<HHHHB', 0, 0, width, height, 0) + b'\x02\x02\x4c\x01\x00;'


def _webp(width: int, height: int) -> bytes:
    """A lossless WebP of one color."""
    bits = 0x2F | (width - 1) << 8 | (height - 1) << 22
    data = bits.to_bytes(5, 'little') + bytes.fromhex('88888808')
    chunk = b'VP8L' + struct.pack('<I', len(data)) + data + b'\0' * (len(data) % 2)
    return b'RIFF' + struct.pack('<I', 4 + len(chunk)) + b'WEBP' + chunk


def _bmp(width: int, height: int) -> bytes:
    head = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, 1, 0, 0, 0, 2, 0) + bytes(8)
    return b'BM' + struct.pack('<IHHI', 14 + len(head), 0, 0, 14 + len(head)) + head + b'\0\1'


def _blank(kind: str, side: int, **options) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new('RGB', (side, side)).save(file, kind, **options)
    return file.getvalue()


def _jpeg_scans() -> bytes:
    """A progressive JPEG whose last scan is there 80 times."""
    data = _blank('JPEG', 3800, progressive=True)
    start = data.rindex(b'\xff\xda')
    return data[:start] + data[start:-2] * 80 + b'\xff\xd9'


def images() -> dict[str, bytes]:
    """Files of images, by name."""
    side = 9400  # just under the limit of pixels
    text_chunk = _png_chunk(b'zTXt', b'Comment\0\0' + _packed_zeros(300_000_000))
    profile = _png_chunk(b'iCCP', b'p\0\0' + _packed_zeros(300_000_000))
    return {
        'beyond.png': png(60_000, 60_000, 'L'),
        'under.png': png(side, side),
        'under_bits.png': png(side, side, 'L', 1),
        'under_alpha.png': png(side, side, 'RGBA'),
        'under_deep.png': png(side, side, 'RGB', 16),
        'text.png': png(8, 8, chunks=text_chunk),
        'profile.png': png(8, 8, chunks=profile),
        'exif.png': png(8, 8, chunks=_png_chunk(b'eXIf', _directory(20_000, 400_000))),
        'chunks.png': png(8, 8, chunks=_png_chunk(b'abCd', b'') * 200_000),
        'tags.tif': _directory(20_000, 400_000),
        'under.tif': _tiff(side, side),
        'beyond.tif': _tiff(60_000, 60_000),
        'under.gif': _gif(side, side),
        'beyond.gif': _gif(65_535, 65_535),
        'under.webp': _webp(side, side),
        'beyond.webp': _webp(16_383, 16_383),
        'under.bmp': _bmp(side, side),
        'beyond.bmp': _bmp(2**30, 2**30),
        'under.jpg': _blank('JPEG', 4200, quality=1),
        'scans.jpg': _jpeg_scans(),
        'zeros.png': bytes(2**20),
    }


# Annotations and other files.


def _mat(*elements: bytes) -> bytes:
    return b'MATLAB 5.0 MAT-file'.ljust(124) + struct.pack('<H', 0x0100) + b'IM' + b''.join(elements)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack('<II', kind, len(data)) + data + bytes(-len(data) % 8)


def _array(array_class: int, shape: tuple[int, ...], *parts: bytes, name: bytes = b'') -> bytes:
    head = _element(6, struct.pack('<II', array_class, 0)) + _element(5, struct.pack(f'<{len(shape)}i', *shape))
    return _element(14, head + _element(1, name) + b''.join(parts))


def _compressed(element: bytes) -> bytes:
    data = zlib.compress(element, 9)
    return struct.pack('<II', 15, len(data)) + data


def matlab() -> dict[str, bytes]:
    """MATLAB files of annotations, by name."""
    one = _array(6, (1, 1), _element(2, b'\x01'))
    cells = _array(1, (1, 1_500_000), one * 1_500_000, name=b'annotations')
    empty = _element(14, b'')
    return {
        'cells.mat': _mat(_compressed(cells)),
        'empty_cells.mat': _mat(_compressed(_array(1, (1, 4_000_000), empty * 4_000_000, name=b'annotations'))),
        'zeros.mat': _mat(
            _compressed(_array(6, (1, 200_000_000), _element(2, bytes(200_000_000)), name=b'annotations'))
        ),
        'widened.mat': _mat(
            _compressed(_array(6, (1, 30_000_000), _element(2, bytes(30_000_000)), name=b'annotations'))
        ),
        'text.mat': _mat(_array(4, (1, 2**30), _element(16, b''), name=b'annotations')),
        'no_fields.mat': _mat(
            _array(2, (30_000, 30_000), _element(5, struct.pack('<i', 8)), _element(1, b''), name=b'annotations')
        ),
        'many.mat': _mat(*[_compressed(_array(6, (1, 2_000_000), _element(2, bytes(2_000_000)), name=b'x'))] * 100),
        'beyond.mat': _mat(_compressed(bytes(400_000_000))),
    }


def npz() -> bytes:
    """An archive of arrays of 100 MB each, compressed a thousandfold."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in ('labels', 'unreadable', 'heads', 'classes', 'log_probabilities', 'image_set', 'status', 'digests'):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {'descr': '<i8', 'fortran_order': False, 'shape': (12_500_000,)}
            )
            with archive.open(f'{name}.npy', 'w') as out:
                out.write(header.getvalue())
                for _ in range(25):
                    out.write(bytes(4_000_000))
    return file.getvalue()


def pickled_npz(mark: Path) -> bytes:
    """An archive of an object array that runs code when it is unpickled."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    file = io.BytesIO()
    np.savez(file, labels=np.array([Evil()], object))
    return file.getvalue()


def deep_json(levels: int) -> bytes:
    return b'{"config": ' + b'[' * levels + b']' * levels + b'}'


def wide_json(count: int) -> bytes:
    return b'{"config": [' + b'[],' * count + b'[]]}'


# Files that are not files.


def special_files() -> dict[str, Write]:
    """What may have the name of a file but must not be opened, by the kind."""

    def fifo(path: Path) -> None:
        os.mkfifo(path)

    def linked_fifo(path: Path) -> None:
        pipe = path.parent.parent / f'pipe-{path.name}'
        if not pipe.exists():
            os.mkfifo(pipe)
        path.symlink_to(pipe)

    def device(path: Path) -> None:
        path.symlink_to('/dev/zero')

    def open_socket(path: Path) -> None:
        here = os.getcwd()
        os.chdir(path.parent)  # the path of a socket is short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)

    return {'fifo': fifo, 'linked_fifo': linked_fifo, 'device': device, 'socket': open_socket}
