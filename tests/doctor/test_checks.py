"""The doctor's checks: each finds a defect planted in a small copy of a published data set."""

import dataclasses
import os
import shutil
import zlib

import cv2
import numpy as np
import pytest
import scipy.io
from data_samples import make_config, write_image
from PIL import Image

from ssanet_jax.data.listing import Listing, Record
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.doctor.checks import files_to_fix, run_checks
from ssanet_jax.doctor.near_duplicates import near_duplicates
from ssanet_jax.doctor.scan import scan_image, scan_images
from ssanet_jax.errors import UserError

ALBATROSS = 'images/001.Black_footed_Albatross/bird_{}.jpg'.format
SOOTY = 'images/003.Sooty_Albatross/bird_{}.jpg'.format


def findings(listing: Listing) -> dict:
    """{title: finding} of all checks."""
    report = run_checks(listing, scan_images(listing, num_workers=2))
    return {finding.title: finding for found in report.values() for finding in found}


def of_level(found: dict, level: str) -> set:
    return {what for what, finding in found.items() if finding.level == level}


def write_photograph(path, seed: int, height=64, width=80, **options) -> np.ndarray:
    """Writes a smooth image that differs from those of other seeds."""
    cells = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    pixels = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def edit_line(path, start: str, line: str) -> None:
    lines = [line if old.startswith(start) else old for old in path.read_text().splitlines()]
    path.write_text('\n'.join(lines) + '\n')


@pytest.fixture
def birds(cub_folder):
    return lambda: findings(read_listing(make_config(name='cub', dir=str(cub_folder))))


def test_a_sound_part_of_cub(birds):
    found = birds()
    assert set(found) == {'subset of the classes', 'tiny images', 'grayscale images'}
    assert of_level(found, 'error') == set()
    assert of_level(found, 'note') == {'grayscale images'}
    assert found['subset of the classes'].examples == ('2 of 200 classes',)
    assert found['grayscale images'].examples == (SOOTY(6),)
    assert len(found['tiny images'].examples) == 7 and found['tiny images'].examples[0].endswith(': 32 x 24')


def test_missing_and_truncated_images(birds, cub_folder):
    (cub_folder / SOOTY(9)).unlink()
    whole = (cub_folder / ALBATROSS(5)).read_bytes()
    (cub_folder / ALBATROSS(5)).write_bytes(whole[: len(whole) * 2 // 3])
    (cub_folder / ALBATROSS(1)).write_text('<html>not found</html>')
    found = birds()
    assert of_level(found, 'error') == {'missing images', 'unreadable images'}
    assert found['missing images'].files == found['missing images'].examples == (SOOTY(9),)
    assert found['unreadable images'].files == (ALBATROSS(1), ALBATROSS(5))
    assert 'https://' in found['missing images'].cure
    assert files_to_fix(found.values()) == [ALBATROSS(1), ALBATROSS(5), SOOTY(9)]


def test_same_file_in_train_and_test(birds, cub_folder):
    shutil.copy(cub_folder / ALBATROSS(1), cub_folder / ALBATROSS(2))
    found = birds()
    assert of_level(found, 'error') == {'images in both train and test'}
    leak = found['images in both train and test']
    assert leak.examples == (f'{ALBATROSS(1)} = {ALBATROSS(2)}',)
    assert leak.files == (ALBATROSS(1),)  # The training copy.


def test_same_file_under_two_classes(birds, cub_folder):
    shutil.copy(cub_folder / ALBATROSS(1), cub_folder / SOOTY(8))
    found = birds()
    assert of_level(found, 'error') == {'images in two classes'}
    assert found['images in two classes'].files == (ALBATROSS(1), SOOTY(8))


def test_same_file_twice_in_a_class_is_harmless(birds, cub_folder):
    shutil.copy(cub_folder / ALBATROSS(1), cub_folder / ALBATROSS(5))
    found = birds()
    assert of_level(found, 'error') == set()
    assert found['duplicates within a class'].examples == (f'{ALBATROSS(1)} = {ALBATROSS(5)}',)


def test_a_file_listed_twice_is_read_once_and_found(birds, cub_folder):
    edit_line(cub_folder / 'images.txt', '2 ', f'2 {ALBATROSS(1).removeprefix("images/")}')
    listing = read_listing(make_config(name='cub', dir=str(cub_folder)))
    assert len(listing.records) == 7 and len(list(scan_images(listing))) == 6
    assert birds()['images in both train and test'].examples == (f'{ALBATROSS(1)} = {ALBATROSS(1)}',)


@pytest.mark.parametrize(
    ('box', 'level'),
    [
        ('0.0 0.0 32.0 24.0', None),
        ('1.0 1.0 32.0 24.0', None),  # One pixel over: counted from 1.
        ('2.0 2.0 33.5 5.0', 'warning'),
        ('-4.0 2.0 10.0 5.0', 'warning'),
        ('32.0 2.0 10.0 5.0', 'error'),
        ('5.0 -9.0 10.0 9.0', 'error'),
        ('5.0 5.0 0.0 9.0', 'error'),
    ],
)
def test_boxes(birds, cub_folder, box, level):
    edit_line(cub_folder / 'bounding_boxes.txt', '5 ', f'5 {box}')
    found = birds()
    what = {'warning': 'boxes beyond their image', 'error': 'boxes outside their image'}
    assert {name for name in what.values() if name in found} == ({what[level]} if level else set())
    if level:
        assert found[what[level]].level == level and found[what[level]].examples[0].startswith(ALBATROSS(5))


def test_a_box_that_is_not_a_number_is_refused_by_every_command(birds, cub_folder):
    edit_line(cub_folder / 'bounding_boxes.txt', '5 ', '5 nan 5.0 3.0 9.0')
    with pytest.raises(UserError, match='bounding_boxes.txt is not a table of 5 numbers per line'):
        birds()


def test_key_points_outside(birds, cub_folder):
    parts = cub_folder / 'parts/part_locs.txt'
    edit_line(parts, '5 2 ', '5 2 99.0 5.0 0')  # Not visible: means nothing.
    assert 'images with key points outside' not in birds()
    edit_line(parts, '5 2 ', '5 2 99.0 5.0 1')
    assert birds()['images with key points outside'].examples == (ALBATROSS(5),)


def test_counts_of_a_whole_set(cub_folder):
    listing = read_listing(make_config(name='cub', dir=str(cub_folder)))

    def with_published(**published):
        return findings(dataclasses.replace(listing, published=published))

    right = with_published(classes=2, train=4, test=3)
    assert not {'wrong counts', 'subset of the classes'} & set(right)
    short = with_published(classes=2, train=5, test=3)['wrong counts']
    assert short.level == 'error' and short.examples == ('4 train images, 5 were published',)
    # With classes left out fewer images are expected, but never more.
    assert 'wrong counts' not in with_published(classes=3, train=5, test=5)
    assert with_published(classes=3, train=5, test=2)['wrong counts'].examples == ('3 test images, 2 were published',)
    assert with_published(classes=1, train=4, test=3)['wrong counts'].examples == ('2 classes, 1 were published',)
    assert 'wrong counts' not in with_published()


def made_listing(root, labels: dict[str, list[int]], classes=2) -> Listing:
    """A listing with these labels in each split, and its images on disk."""
    records = []
    for split, values in labels.items():
        for number, label in enumerate(values):
            path = f'{split}_{number}.png'
            write_photograph(root / path, len(records))
            records.append(Record(path, label, split))
    return Listing('made', 'made', root, tuple('abcdefgh'[:classes]), records)


def test_labels_and_classes(tmp_path):
    sound = made_listing(tmp_path, dict(train=[0, 1, 0], test=[1, 0]))
    assert findings(sound) == {}

    found = findings(made_listing(tmp_path, dict(train=[0, 0, 2], test=[0, -1])))
    assert of_level(found, 'error') == {'labels out of range', 'classes without training images'}
    assert found['labels out of range'].files == ('train_2.png', 'test_1.png')
    assert found['classes without training images'].examples == ('b',)
    assert found['classes without test images'].level == 'warning'

    found = findings(made_listing(tmp_path, dict(train=[0, 1], test=[])))
    assert found['splits without images'].level == 'error' and found['splits without images'].examples == ('test',)


def test_uneven_classes(tmp_path):
    assert findings(made_listing(tmp_path, dict(train=[0] * 20 + [1, 1], test=[0, 1]))) == {}
    found = findings(made_listing(tmp_path, dict(train=[1] * 21 + [0, 0], test=[0, 1])))
    assert of_level(found, 'warning') == set(found) == {'imbalanced classes'}
    assert found['imbalanced classes'].examples == ('2 training images of a, 21 of b',)


def test_copies_in_another_format(tmp_path):
    pixels = [write_photograph(tmp_path / 'owl' / f'{i}.png', i) for i in range(6)]
    listing = read_listing(make_config(name='folder', dir=str(tmp_path)))
    (held_out,) = (record for record in listing.records if record.split == 'test')
    number = int(held_out.path[4])
    Image.fromarray(pixels[number]).save(tmp_path / f'owl/{(number + 1) % 6}.png', compress_level=0)
    leak = findings(listing)['images in both train and test']
    assert leak.files == (f'owl/{(number + 1) % 6}.png',)


def test_aircraft_are_compared_without_their_banner(tmp_path):
    data = tmp_path / 'data'
    # Stored without loss: in a JPEG the banner would shine through to the rows above it.
    pixels = [write_photograph(data / f'images/{i}.jpg', i, format='PNG') for i in range(3)]
    write_image(data / 'images/3.jpg', height=12, width=80)
    pixels[0][-20:] = 90  # One photograph, two names below it.
    Image.fromarray(pixels[0]).save(data / 'images/2.jpg', format='PNG')
    (data / 'variants.txt').write_text('707-320\n')
    (data / 'images_variant_trainval.txt').write_text('0 707-320\n1 707-320\n')
    (data / 'images_variant_test.txt').write_text('2 707-320\n3 707-320\n')
    found = findings(read_listing(make_config(name='aircraft', dir=str(tmp_path))))
    (cut,) = found['unreadable images'].examples
    assert cut.endswith('images/3.jpg: empty after cropping the bottom 20 rows')
    (leak,) = found['images in both train and test'].examples
    assert 'images/0.jpg = ' in leak and leak.endswith('images/2.jpg')


def test_cars(tmp_path):
    box = [('bbox_x1', 'O'), ('bbox_y1', 'O'), ('bbox_x2', 'O'), ('bbox_y2', 'O'), ('class', 'O'), ('fname', 'O')]
    (tmp_path / 'devkit').mkdir()
    scipy.io.savemat(tmp_path / 'devkit/cars_meta.mat', {'class_names': np.array(['Audi TT', 'Fiat 500'], object)})
    rows = {
        'train_annos': [(1, 1, 80, 64, 1, '1.jpg'), (90, 1, 99, 9, 2, '2.jpg')],
        'test_annos_withlabels': [(1, 1, 9, 9, 1, '1.jpg')],
    }
    for name, values in rows.items():
        scipy.io.savemat(tmp_path / f'devkit/cars_{name}.mat', {'annotations': np.array([values], box)})
    for seed, file in enumerate(('cars_train/1.jpg', 'cars_train/2.jpg', 'cars_test/1.jpg')):
        write_photograph(tmp_path / file, seed)
    found = findings(read_listing(make_config(name='cars', dir=str(tmp_path))))
    assert found['boxes outside their image'].files == ('cars_train/2.jpg',)
    assert of_level(found, 'error') == {'boxes outside their image'}


def _bomb(path):
    # 400 million pixels in 50 kilobytes: a PNG whose header promises them and whose data ends early.
    Image.new('1', (100, 100)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (20000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ('make', 'problem'),
    [
        (lambda path: path.mkdir(), 'a folder'),
        (lambda path: path.touch(), 'the file is empty'),
        (lambda path: os.mkfifo(path), 'not a regular file'),
        (lambda path: path.symlink_to('/dev/zero'), 'not a regular file'),
        (lambda path: path.symlink_to(path), 'symbolic links'),
        (lambda path: path.symlink_to('nothing'), 'missing'),
        (lambda path: path.write_text('hello'), 'not an image'),
        (lambda path: (path.touch(), os.truncate(path, 3 << 30)), 'more than 537 MB'),
        (_bomb, 'pixels'),
        (lambda path: (write_image(path), path.chmod(0)), 'ermission denied'),
    ],
    ids=['folder', 'empty', 'pipe', 'device', 'loop', 'dangling', 'text', 'sparse', 'bomb', 'forbidden'],
)
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_whatever_a_folder_may_hold(tmp_path, make, problem):
    if problem == 'ermission denied' and os.geteuid() == 0:
        pytest.skip('root may read everything')
    make(tmp_path / 'x.png')
    picture = scan_image(tmp_path, 'x.png')
    assert problem in picture.problem
    assert picture.missing == (problem == 'missing')


def test_names_that_no_file_has_or_few_have(tmp_path):
    for name in ('no\0such.png', 'x' * 5000, 'no/such.png', '\ud800.png'):
        assert scan_image(tmp_path, name).problem
    write_photograph(tmp_path / 'file.png', 0)
    assert scan_image(tmp_path, 'file.png/x.png').missing
    strange = b'\xff\x1b[31m \xc3\xa9.png'.decode('utf-8', 'surrogateescape')
    for name in ('größe 鳥.png', '[red]x[/red].png', strange):
        write_photograph(tmp_path / name, 0)
        assert not scan_image(tmp_path, name).problem


def copied(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return scan_image(path.parent, path.name)


def test_near_copies_are_found_and_others_are_not(tmp_path):
    train = []
    for seed in range(40):
        write_photograph(tmp_path / f'{seed}.png', seed, 200, 300)
        train.append(scan_image(tmp_path, f'{seed}.png'))
    pixels = np.array(Image.open(tmp_path / '7.png'))
    smaller = copied(cv2.resize(pixels, (150, 100), interpolation=cv2.INTER_AREA), tmp_path / 'small.jpg', quality=60)
    cut = copied(pixels[2:-2, 3:-3], tmp_path / 'cut.png')
    same = copied(pixels, tmp_path / 'same.png')
    write_photograph(tmp_path / 'other.png', 1000, 200, 300)
    other = scan_image(tmp_path, 'other.png')
    pairs = near_duplicates(train, [smaller, other, cut, same])
    assert [(ours.path, theirs.path) for ours, theirs in pairs] == [('7.png', 'small.jpg'), ('7.png', 'cut.png')]
    assert near_duplicates([], [smaller]) == near_duplicates(train, []) == []


def test_flat_pictures_are_not_near_copies(tmp_path):
    ramp = np.broadcast_to(np.linspace(40, 200, 64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    sides = []
    for side, shade in (('train', 3), ('test', 9)):
        pictures = [ramp + shade, ramp[:, ::-1] + shade, ramp.transpose(1, 0, 2) + shade, ramp * 0 + shade]
        sides.append([copied(pixels, tmp_path / f'{side}{i}.png') for i, pixels in enumerate(pictures)])
    assert near_duplicates(*sides) == []


def test_both_bounds_of_near_copies(tmp_path):
    write_photograph(tmp_path / 'x.png', 0)
    picture = dataclasses.replace(scan_image(tmp_path, 'x.png'), hash=0x0F0F_3355_AA55_0FF0)
    flipped = lambda bits: dataclasses.replace(picture, digest=b'another', hash=picture.hash ^ ((1 << bits) - 1) << 20)
    assert len(near_duplicates([picture], [flipped(10)])) == 1
    assert near_duplicates([picture], [flipped(11)]) == []
    mirrored = dataclasses.replace(flipped(0), thumbnail=picture.thumbnail[:, ::-1])
    assert near_duplicates([picture], [mirrored]) == []


def test_hash_says_where_it_gets_brighter(tmp_path):
    steps = np.repeat(np.arange(9, dtype=np.uint8) * 20, 10)
    picture = copied(np.broadcast_to(steps[None, :, None], (80, 90, 3)).copy(), tmp_path / 'up.png')
    assert picture.hash == 2**64 - 1
    steps[40:50] = 0  # The fifth cell is darker than the fourth.
    picture = copied(np.broadcast_to(steps[None, :, None], (80, 90, 3)).copy(), tmp_path / 'dip.png')
    assert picture.hash == int('11101111' * 8, 2)


def test_gray_needs_all_three_channels_alike(tmp_path):
    shade = write_photograph(tmp_path / 'x.png', 0)[..., 0]
    for name, (red, green, blue) in dict(gray=(0, 0, 0), yellow=(0, 0, 1), cyan=(1, 0, 0)).items():
        pixels = np.stack([shade // 2 + red, shade // 2 + green, shade // 2 + blue], -1)
        assert copied(pixels, tmp_path / f'{name}.png').gray == (name == 'gray')


def test_sizes(tmp_path):
    listing = made_listing(tmp_path, dict(train=[0, 1], test=[0, 1]))
    write_photograph(tmp_path / 'train_0.png', 0, 31, 200)
    pictures = list(scan_images(listing))
    pictures[2] = dataclasses.replace(pictures[2], height=7000, width=7200)
    found = {finding.title: finding for finding in run_checks(listing, pictures)['sizes']}
    assert found['tiny images'].examples == ('train_0.png: 200 x 31',)
    assert found['huge images'].examples == ('test_0.png: 7200 x 7000',)
    assert of_level(found, 'error') == set()


def test_images_of_16_bits(tmp_path):
    """The note names the depth that training uses, and the warning those that it makes dark."""
    for number, largest in enumerate((4000, 3000, 900, 200)):
        values = np.random.default_rng(number).integers(0, largest, (80, 80)).astype(np.uint16)
        values[0, 0] = largest
        path = tmp_path / ('test' if number == 1 else 'train') / 'ab'[number % 2] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), values)
    for split, name in (('train', 'b'), ('test', 'a'), ('train', 'a')):
        write_photograph(tmp_path / split / name / 'plain.png', seed=len(split) * 7 + ord(name))
    config = make_config(name='folder', dir=str(tmp_path), prepared_dir=str(tmp_path / 'copies'))
    found = findings(read_listing(config))
    note = found['images of 16 bits per channel']
    uses = {'train/a/0.png': 12, 'test/b/1.png': 12, 'train/a/2.png': 10, 'train/b/3.png': 8}
    assert sorted(note.examples) == sorted(f'{file}: uses {bits} bits' for file, bits in uses.items())
    assert note.level == 'note'
    assert note.cure == 'no action needed: the highest 8 of 12 bits are kept (config.data.bit_depth)'
    assert load_dataset(config).bit_depth == 12, 'as in training'
    dark = found['images of 16 bits that are much darker than others']
    assert dark.level == 'warning' and dark.examples == ('train/b/3.png: uses 8 bits',)
    assert dark.cure == ('all are read as 12 bits: if these come from another camera, scale their values to 12 bits')


def test_images_of_8_bits_have_no_depth(birds):
    assert not any('16 bits' in title for title in birds())


def test_color_tags_that_are_ignored(tmp_path):
    for number, (split, name) in enumerate((split, name) for split in ('train', 'test') for name in ('a', 'b')):
        write_photograph(tmp_path / split / name / f'{number}.png', seed=number)
    path = tmp_path / 'train/b/1.png'
    gamma = b'gAMA' + (100_000).to_bytes(4)
    data = path.read_bytes()
    path.write_bytes(data[:33] + (4).to_bytes(4) + gamma + zlib.crc32(gamma).to_bytes(4) + data[33:])
    finding = findings(read_listing(make_config(name='folder', dir=str(tmp_path))))[
        'images with color tags that are ignored'
    ]
    assert finding.level == 'warning' and finding.examples == ('train/b/1.png: gamma 1',)
