"""What the package reads: for each kind of file, good files to damage, and the code that reads them."""

import csv
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exported_files
import numpy as np
import scipy.io
from ml_collections import ConfigDict
from mutations import mutate_bytes, mutate_json, mutate_text
from PIL import Image, ImageCms

from configs import demo
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.listing import Listing
from ssanet_jax.data.record_builder import convert_image
from ssanet_jax.data.registry import read_listing
from ssanet_jax.doctor.scan import scan_image
from ssanet_jax.download import lists
from ssanet_jax.download.unpack import unpack
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.neighbors import nearest_images
from ssanet_jax.experiments.run_comparison import compare_runs, load_predictions
from ssanet_jax.models.backbones.base import IMAGENET_MEAN
from ssanet_jax.pretrained.checkpoint_info import architecture_info, read_timm_config
from ssanet_jax.pretrained.load import read_tensors
from ssanet_jax.report.curves import learning_curves
from ssanet_jax.report.measurement_sections import read_measurements
from ssanet_jax.report.result_files import BestStep, RunSummary, StageSummary, damaged_histories, read_summary
from ssanet_jax.runs.compatibility import changed_settings, evaluation_config
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.feature_index import INDEX_FILE, read_index, row_type, write_index
from ssanet_jax.runs.files import read_json, read_run
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.image_predictions import ImagePredictions
from ssanet_jax.runs.preprocessing import complete_preprocessing
from ssanet_jax.runs.results import BestResult, RunEvaluation, StageResult, read_result
from ssanet_jax.runs.run import load_run

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    make: Callable[[Path], None]
    """Writes good files into an empty folder."""
    files: Sequence[str]
    """Patterns of the files to damage, relative to it."""
    read: Callable[[Path], Any]
    """Reads the folder as the commands do. The path is that of the folder, or of a file if `single`."""
    mutate: Mutate = mutate_bytes
    single: bool = False
    share: float = 1.0
    """How many of the inputs it gets, compared with the other targets."""


def _picture(mode: str = 'RGB', size: tuple[int, int] = (24, 18)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _make_images(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    saves = {
        'baseline.jpg': ('RGB', {}),
        'progressive.jpg': ('RGB', dict(progressive=True)),
        'turned.jpg': ('RGB', dict(exif=exif, icc_profile=profile)),
        'gray.jpg': ('L', {}),
        'cmyk.jpg': ('CMYK', {}),
        'rgb.png': ('RGB', dict(icc_profile=profile)),
        'palette.png': ('P', dict(transparency=0)),
        'alpha.png': ('RGBA', {}),
        'deep.png': ('I;16', {}),
        'bits.png': ('1', {}),
        'image.webp': ('RGB', {}),
        'lossless.webp': ('RGBA', dict(lossless=True)),
        'image.bmp': ('RGB', {}),
        'rle.bmp': ('P', {}),
        'raw.tif': ('RGB', {}),
        'lzw.tif': ('RGB', dict(compression='tiff_lzw')),
        'deflate.tif': ('L', dict(compression='tiff_deflate')),
        'jpeg.tif': ('RGB', dict(compression='jpeg')),
        'fax.tif': ('1', dict(compression='group4')),
        'float.tif': ('F', {}),
        'image.gif': ('P', {}),
        'moving.gif': ('P', dict(save_all=True, append_images=[_picture('P')] * 2)),
    }
    for name, (mode, options) in saves.items():
        if mode == 'I;16':
            Image.fromarray(np.random.default_rng(0).integers(0, 4096, (18, 24), np.uint16)).save(folder / name)
        else:
            _picture(mode).save(folder / name, **options)


def _read_image(path: Path) -> None:
    data = path.read_bytes()
    problems = []
    for read in (lambda: decode_image(data, path.name), lambda: convert_image(data, path.name, 2, 8)):
        try:
            image = read()
            if isinstance(image, np.ndarray):
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
        except UserError as error:
            problems.append(error)
    scan_image(path.parent, path.name, 0)  # a problem is a part of its result
    if problems:
        raise problems[0]


def _check_listing(listing: Listing) -> None:
    assert len(set(listing.class_names)) == len(listing.class_names) or listing.slug == 'cub', 'classes twice'
    for record in listing.records:
        assert 0 <= record.label < len(listing.class_names), 'a label that is no class'
        assert record.box is None or np.isfinite(record.box).all(), 'a box that is not finite'
        assert record.keypoints is None or np.isfinite(record.keypoints).all(), 'a key point that is not finite'
        assert '\0' not in record.path


def _write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _picture().save(folder / name)


def _make_cub(folder: Path) -> None:
    classes = {1: '001.Black_footed_Albatross', 2: '002.Laysan_Albatross'}
    columns: dict[str, list[str]] = {
        'classes': [f'{number} {name}' for number, name in classes.items()],
        **{n: [] for n in ('images', 'image_class_labels', 'train_test_split', 'bounding_boxes', 'parts/part_locs')},
    }
    for image in range(1, 7):
        label = 1 + image % 2
        file = f'{classes[label]}/{image}.jpg'
        _write_pictures(folder, f'images/{file}')
        columns['images'].append(f'{image} {file}')
        columns['image_class_labels'].append(f'{image} {label}')
        columns['train_test_split'].append(f'{image} {int(image < 5)}')
        columns['bounding_boxes'].append(f'{image} 1.0 2.0 10.0 5.5')
        columns['parts/part_locs'] += [f'{image} {part} {part}.0 3.5 {part % 2}' for part in range(1, 16)]
    (folder / 'parts').mkdir()
    for name, lines in columns.items():
        (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def _make_aircraft(folder: Path) -> None:
    classes = ('707-320', 'A340-200')
    (folder / 'variants.txt').write_text('\n'.join(classes) + '\n')
    images = [f'{number:07d}' for number in range(6)]
    _write_pictures(folder, *(f'images/{image}.jpg' for image in images))
    for split, chosen in (('trainval', images[:4]), ('test', images[4:])):
        lines = [f'{image} {classes[int(image) % 2]}\n' for image in chosen]
        (folder / f'images_variant_{split}.txt').write_text(''.join(lines))
    (folder / 'images_box.txt').write_text(''.join(f'{image} 3 5 20 15\n' for image in images))


def _make_cars(folder: Path) -> None:
    (folder / 'devkit').mkdir()
    fields = [(name, 'O') for name in ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'fname')]
    for split, file in (('train', 'cars_train_annos'), ('test', 'cars_test_annos_withlabels')):
        rows = [(1, 2, 20, 15, 1 + number % 2, f'{number:05d}.jpg') for number in range(4)]
        _write_pictures(folder, *(f'cars_{split}/{row[-1]}' for row in rows))
        annotations = {'annotations': np.array([rows], fields)}
        scipy.io.savemat(folder / f'devkit/{file}.mat', annotations, do_compression=split == 'train')
    scipy.io.savemat(folder / 'devkit/cars_meta.mat', {'class_names': np.array(['Audi TT', 'Fiat 500'], object)})


def _mutate_mat(data: bytes, rng: random.Random) -> bytes:
    """Changes the bytes, or a value of a variable."""
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    content = scipy.io.loadmat(io.BytesIO(data))
    variables = [name for name in content if not name.startswith('__')]
    name = rng.choice(variables)
    array, odd = content[name], rng.choice(_ODD_ARRAYS)
    match rng.randrange(5):
        case 0:
            del content[name]
        case 1:
            content[name] = odd
        case 2:
            content[name] = array[:, : rng.randrange(array.shape[1] + 1)]
        case _ if array.dtype.names:  # a struct
            array[0, rng.randrange(array.shape[1])][rng.choice(array.dtype.names)] = odd
        case _ if array.dtype == object:
            array.flat[rng.randrange(array.size)] = odd
        case _:
            array.flat[rng.randrange(array.size)] = rng.choice((0, 1, 200, 255))
    out = io.BytesIO()
    scipy.io.savemat(out, {key: content[key] for key in content if not key.startswith('__')})
    return out.getvalue()


# What a variable or a cell of a .mat file may hold instead of a number or a name.
_ODD_ARRAYS = (
    *(np.zeros((0, 0)), np.array([[np.nan]]), np.array([[np.inf]]), np.array([[-1]]), np.array([[1e300]])),
    *(np.array([[2**63 - 1]]), np.array([[1, 2]]), np.array([[1.5]]), np.array([[1 + 2j]]), np.array([[True]])),
    *(np.array(['']), np.array(['../../x.jpg']), np.array(['/etc/passwd']), np.array(['a', 'bc']), np.array(['\x00'])),
    *(np.array([[np.array([1])]], object), np.zeros((2, 2, 2))),
)


def _make_flowers(folder: Path) -> None:
    scipy.io.savemat(folder / 'imagelabels.mat', {'labels': np.array([[1, 2, 1, 2, 1, 2]], np.uint8)})
    ids = {'trnid': [[1, 2]], 'valid': [[4]], 'tstid': [[3, 5, 6]]}
    scipy.io.savemat(folder / 'setid.mat', {name: np.array(each, np.uint16) for name, each in ids.items()})
    for split in ('train', 'test'):
        cells = np.array([[np.array(['n01-Dog/n01_1.jpg'])], [np.array(['n02-Fox/n02_2.jpg'])]], object)
        scipy.io.savemat(folder / f'{split}_list.mat', {'file_list': cells}, do_compression=split == 'test')
    (folder / 'annotations').mkdir()
    for name in ('trainval', 'test'):
        (folder / f'annotations/{name}.txt').write_text('# a comment\nAbyssinian_1 1 1 1\ngreat_dane_2 2 2 1\n')


def _read_lists(folder: Path) -> None:
    for function in (lists.flowers, lists.dogs, lists.pets):
        for line in function(folder):
            assert all(isinstance(field, str) for field in line)


def _make_folder(folder: Path) -> None:
    paths = [f'{name}/{number}.jpg' for name in ('wren', 'robin') for number in range(4)]
    _write_pictures(folder, *paths)
    with open(folder / 'list.csv', 'w', newline='') as file:
        lines = csv.writer(file)
        lines.writerow(['path', 'label', 'split'])
        for path in paths:
            lines.writerow([path, f'{path.partition("/")[0]}, "wild"', 'train' if path[-5] < '3' else 'test'])


def _read_set(name: str, **fields: Any) -> Callable[[Path], None]:
    return lambda folder: _check_listing(read_listing(ConfigDict(dict(name=name, dir=str(folder), **fields))))


def _torch_pickle(key: str = '0', module: bytes = b'torch._utils\n_rebuild_tensor_v2\n') -> bytes:
    """A state dict with one float32 tensor of 2 x 3 numbers, pickled by hand."""
    storage = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00' + key.encode()
    storage += b'X\x03\x00\x00\x00cpuK\x06tQ'
    return (
        b'\x80\x02ccollections\nOrderedDict\n)Rq\x00X\x06\x00\x00\x00weightq\x01c' + module + b'('
        + storage + b'K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR' + b's.'
    )  # fmt: skip


_EVIL = (
    b'cos\nsystem\n(X\x0b\x00\x00\x00touch ownedtR0',
    b'\x8c\x02os\x8c\x06system\x93\x8c\x0btouch owned\x85R0',
    b'(X\x0b\x00\x00\x00touch ownedios\nsystem\n0',
    b'cbuiltins\neval\n(X\x0a\x00\x00\x00__import__tR0',
    b'(cos\nsystem\nX\x0b\x00\x00\x00touch ownedo0',
)


def _make_weights(folder: Path) -> None:
    numbers = np.arange(6, dtype='<f4').tobytes()
    for compression, name in ((zipfile.ZIP_STORED, 'zip.pth'), (zipfile.ZIP_DEFLATED, 'packed.pth')):
        with zipfile.ZipFile(folder / name, 'w', compression) as archive:
            archive.writestr('archive/data.pkl', _torch_pickle())
            archive.writestr('archive/byteorder', 'little')
            archive.writestr('archive/data/0', numbers)
    head = b''.join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
    tail = pickle.dumps(['0'], 2) + struct.pack('<q', 6) + numbers
    (folder / 'legacy.pth').write_bytes(head + _torch_pickle() + tail)
    for number, evil in enumerate(_EVIL):
        (folder / f'evil{number}.pth').write_bytes(head + b'\x80\x02' + evil + _torch_pickle()[2:] + tail)
    header = {'weight': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]}, '__metadata__': {'a': 'b'}}
    content = json.dumps(header).encode()
    (folder / 'model.safetensors').write_bytes(struct.pack('<Q', len(content)) + content + numbers)


def _mutate_weights(data: bytes, rng: random.Random) -> bytes:
    if data[8:9] == b'{' and rng.random() < 0.5:  # the header of safetensors
        (length,) = struct.unpack('<Q', data[:8])
        header = mutate_json(data[8 : 8 + length], rng)
        return struct.pack('<Q', len(header)) + header + data[8 + length :]
    if rng.random() < 0.2:
        place = rng.randrange(len(data))
        data = data[:place] + rng.choice(_EVIL) + data[place:]
    return mutate_bytes(data, rng)


def _read_weights(path: Path) -> None:
    found = read_tensors(path)
    for array in getattr(found, 'tensors', found).values():
        np.array(array).sum()


def _config() -> dict[str, Any]:
    config = demo.get_config()
    config.data.update(interpolation='bilinear', mean=IMAGENET_MEAN, std=(58.0, 57.0, 57.0))
    config.model.geometry = 'standard'
    return json.loads(config.to_json_best_effort())


def _make_config(folder: Path) -> None:
    content = {'config': _config(), 'class_names': [f'bird {number}' for number in range(16)], 'images': 'abc'}
    (folder / 'config.json').write_text(json.dumps(content))


def _read_config(folder: Path) -> None:
    content = read_run(folder)
    config = complete_preprocessing(content['config'])
    changed_settings(content['config'], demo.get_config())
    ConfigDict(config).to_json_best_effort()
    evaluation_config(ConfigDict(content['config']), demo.get_config())


_HUB_CONFIG = {
    'architecture': 'resnet50',
    'pretrained_cfg': {'mean': [0.5, 0.5, 0.5], 'std': [0.2, 0.2, 0.2], 'interpolation': 'bicubic', 'license': 'mit'},
}


def _read_hub_config(path: Path) -> None:
    content = read_json(path, 'download it again')
    read_timm_config(content or {}, architecture_info('resnet50'), 'hub:a/b')


def _make_results(folder: Path) -> None:
    _make_config(folder)
    heads = {'sum': 0.5, 'image': 0.25}
    evaluation = dict(accuracy=0.5, examples=8, heads=heads, unreadable=['a.jpg: truncated'])
    stage = dict(evaluation, step=10, split='test', epochs=2, steps=10, wall_seconds=1.5)
    run = dict(evaluation, stages={'scale_mining': stage}, seed=0, wall_seconds=3.0, dataset='birds')
    run |= dict(backbone='resnet_tiny', pretrained='none', image_size=64, device='cpu', versions={'jax': '0.10'})
    robustness = dict(stage='s', dataset='d', accuracy={'original': 0.5, 'rotated 90': 0.25}, examples=8)
    robustness['drop'] = {'rotated 90': 25.0}
    files = {
        'results.json': run,
        'evaluation.json': dict(evaluation, stage='part_tuning', dataset='birds'),
        'robustness.json': robustness,
        'scale_mining/evaluation.json': stage,
        'scale_mining/best.json': dict(evaluation, step=10),
    }
    (folder / 'scale_mining').mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def _read_results(folder: Path) -> None:
    cure = 'train again'
    stage = folder / 'scale_mining'
    problems = []
    for read in (
        lambda: read_result(stage / 'evaluation.json', StageResult, cure),
        lambda: read_result(stage / 'best.json', BestResult, cure),
        lambda: read_result(folder / 'evaluation.json', RunEvaluation, cure),
        lambda: read_summary(stage / 'evaluation.json', StageSummary),
        lambda: read_summary(stage / 'best.json', BestStep),
        lambda: read_summary(folder / 'results.json', RunSummary),
        lambda: read_measurements(folder),
    ):
        try:
            found = read()
            if isinstance(found, StageResult | BestResult | RunEvaluation):
                f'accuracy {found.accuracy:.4f} on {found.examples} images, {sorted(found.heads)}'
                assert 0 <= found.accuracy <= 1, 'an accuracy outside 0..1'
        except UserError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _make_histories(folder: Path) -> None:
    (folder / 'scale_mining').mkdir()
    lines = [
        dict(kind='epoch', step=10, epoch=1, values={'loss/total': 2.5, 'accuracy': 0.5}),
        dict(kind='evaluation', step=10, epoch=1, split='test', values={'prediction': 0.5}),
        dict(kind='epoch', step=20, epoch=2, values={'loss/total': 1.5, 'accuracy': 0.6}),
    ]
    (folder / 'scale_mining/history.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (folder / 'test_evaluations.jsonl').write_text('{"time": "now", "purpose": "evaluation"}\n' * 2)


def _mutate_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines and rng.random() < 0.7:
        place = rng.randrange(len(lines))
        lines[place] = mutate_json(lines[place], rng) + b'\n'
        return b''.join(lines)
    return mutate_text(data, rng)


def _read_histories(folder: Path) -> None:
    stages = [dict(name='scale_mining', epochs=2)]
    read_history(folder / 'scale_mining/history.jsonl')
    num_test_evaluations(folder)
    learning_curves(folder, stages)
    damaged_histories(folder, ['scale_mining'], ['scale_mining'])


def _make_index(folder: Path) -> None:
    rows = np.zeros(6, row_type(4, 2, 3))
    rows['label'] = np.arange(6) % 3
    with write_index(folder / INDEX_FILE, 'fit', 'abc') as writer:
        writer.add(rows, [f'images/{number}.jpg' for number in range(6)])


def _read_index(path: Path) -> None:
    index = read_index(path, 'write it again')
    assert index is not None
    assert len(index.files) == len(index.labels) == len(index.rows)
    nearest_images(index, np.ones(index.rows.dtype['image'].shape[0], np.float32), k=2)


def _make_predictions(folder: Path) -> None:
    _make_results(folder)
    labels = np.arange(8, dtype=np.int32) % 3
    predictions = ImagePredictions(
        labels=labels,
        unreadable=np.zeros(8, bool),
        classes={'sum': labels.copy(), 'image': np.zeros(8, np.int32)},
        log_probabilities={'sum': np.full(8, -0.5, np.float32)},
        image_set='abc',
    )
    np.savez_compressed(folder / 'predictions.npz', **predictions.to_arrays())
    np.savez(folder / 'plain.npz', **predictions.to_arrays())


def _read_predictions(path: Path) -> None:
    folder = path.parent
    if path.name != 'predictions.npz':
        (folder / 'predictions.npz').write_bytes(path.read_bytes())
    found = load_predictions(folder, 'test')
    compare_runs([found], [found])


def _make_run(folder: Path) -> None:
    with tarfile.open(Path(__file__).parents[1] / 'runs/workdir_0_1_0.tar.gz') as archive:
        archive.extractall(folder, filter='data')


def _read_network(folder: Path) -> None:
    run = load_run(folder / 'run')
    assert run.class_names and run.stage


def _make_archives(folder: Path) -> None:
    for name, mode in (('set.tgz', 'w:gz'), ('set.tar', 'w'), ('set.tar.xz', 'w:xz')):
        with tarfile.open(folder / name, mode) as archive:
            for file in ('set/images.txt', 'set/images/a.jpg'):
                info = tarfile.TarInfo(file)
                info.size = 600
                archive.addfile(info, io.BytesIO(bytes(range(200)) * 3))
            link = tarfile.TarInfo('set/link')
            link.type, link.linkname = tarfile.SYMTYPE, '../..'
            if mode == 'w':
                archive.addfile(link)


def _unpack(path: Path) -> None:
    unpack(path, path.parent / 'out')


TARGETS = {
    'images': Target(_make_images, ['*'], _read_image, single=True, share=4),
    'cub lists': Target(_make_cub, ['**/*.txt'], _read_set('cub'), mutate_text, share=1.5),
    'aircraft lists': Target(_make_aircraft, ['*.txt'], _read_set('aircraft', level='variant'), mutate_text),
    'cars .mat': Target(_make_cars, ['devkit/*.mat'], _read_set('cars'), _mutate_mat, share=1.5),
    'flowers and dogs .mat': Target(_make_flowers, ['*.mat'], _read_lists, _mutate_mat),
    'pets lists': Target(_make_flowers, ['annotations/*.txt'], _read_lists, mutate_text, share=0.5),
    'csv': Target(
        _make_folder, ['list.csv'], _read_set('folder', csv='list.csv', split_seed=0), mutate_text, share=1.5
    ),
    'weights': Target(_make_weights, ['*'], _read_weights, _mutate_weights, single=True, share=4),
    'config.json': Target(_make_config, ['config.json'], _read_config, mutate_json, share=2),
    'hub config.json': Target(
        lambda folder: (folder / 'config.json').write_text(json.dumps(_HUB_CONFIG)) and None,
        ['config.json'], _read_hub_config, mutate_json, single=True, share=0.5,
    ),
    'results': Target(_make_results, ['**/*.json'], _read_results, mutate_json, share=2),
    'histories': Target(_make_histories, ['**/*.jsonl'], _read_histories, _mutate_lines),
    'predictions.npz': Target(_make_predictions, ['*.npz'], _read_predictions, single=True),
    'index.npz': Target(_make_index, ['*.npz'], _read_index, single=True),
    'run': Target(_make_run, ['run/config.json'], _read_network, mutate_json, share=0.2),
    'archives': Target(_make_archives, ['*'], _unpack, single=True),
    'exported networks': Target(exported_files.make, ['*'], exported_files.read, exported_files.mutate, single=True),
}  # fmt: skip
