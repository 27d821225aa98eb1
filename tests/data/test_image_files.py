"""Which files are images: by content, whatever they are called; links, pipes and the remains of systems."""

import io
import os
import socket

import pytest
from data_samples import write_image
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.data import image_files
from ssanet_jax.data.image_files import links_outside_line, search_folder
from ssanet_jax.data.image_formats import explain_content, image_format, readable_formats
from ssanet_jax.data.image_inputs import find_images, read_image
from ssanet_jax.data.left_out import LeftOut, left_out_line
from ssanet_jax.data.registry import read_listing
from ssanet_jax.errors import UnreadableImage

HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100)


def search(folder):
    found = image_files.search_folder(folder)
    name = lambda path: os.path.relpath(path, folder)
    return [name(path) for path in found.images], {name(item.path): item.reason for item in found.left_out}


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'AVIF'])
def test_the_content_decides(tmp_path, kind):
    if kind not in readable_formats():
        pytest.skip(f'this Pillow does not read {kind}')
    out = io.BytesIO()
    Image.new('RGB', (20, 20)).save(out, kind)
    assert image_format(out.getvalue()[:32]) == kind
    for name in ('IMG_0001', 'photo.jpg.1', 'photo.dat'):
        (tmp_path / name).write_bytes(out.getvalue())
    assert search(tmp_path) == (['IMG_0001', 'photo.dat', 'photo.jpg.1'], {})
    assert read_image(tmp_path / 'IMG_0001').shape == (20, 20, 3)


def test_other_files_and_why(tmp_path):
    write_image(tmp_path / 'a.JFIF')
    jpeg = (tmp_path / 'a.JFIF').read_bytes()
    contents = {
        'phone.HEIC': HEIC,
        'renamed': HEIC,
        'raw.NEF': b'II*\0' + bytes(40),  # a TIFF, of which Pillow would read the small preview
        'a.jpg~': jpeg,
        'b.jpg_original': jpeg,
        'c.jpg.crdownload': jpeg,
        'BMW.txt': b'BMW is a maker of cars, not a bitmap',
        'empty': b'',
        'x.jxl': b'\xff\x0a',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    needs_plugin = 'HEIC, which needs the package pillow-heif'
    backup = 'a backup or an unfinished download'
    expected = {
        'phone.HEIC': needs_plugin,
        'renamed': needs_plugin,
        'raw.NEF': 'camera raw, which is not supported',
        'a.jpg~': backup,
        'b.jpg_original': backup,
        'c.jpg.crdownload': backup,
        'BMW.txt': 'not an image',
        'empty': 'not an image',
        'x.jxl': 'JPEG XL, which is not supported',
    }
    if 'HEIF' in readable_formats():
        pytest.skip('the HEIF plugin is installed')
    assert search(tmp_path) == (['a.JFIF'], expected)


def test_hidden_files_and_those_of_systems_are_skipped(tmp_path):
    for name in ('._a.jpg', '.cache/a.jpg', '__MACOSX/a.jpg', '@eaDir/a.jpg', 'b/.ipynb_checkpoints/a.jpg'):
        write_image(tmp_path / name)
    (tmp_path / 'Thumbs.db').touch()
    write_image(tmp_path / 'folder.jpg/a.png')
    assert search(tmp_path) == (['folder.jpg/a.png'], {})


def test_pipes_sockets_and_devices_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'zero.jpg').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / 'socket'))
    images, left_out = search(tmp_path)
    assert images == [] and set(left_out.values()) == {'not a regular file'} and len(left_out) == 3
    with pytest.raises(UnreadableImage, match=r'pipe.jpg \(not a regular file\)'):
        read_image(tmp_path / 'pipe.jpg')


def test_links_are_followed_once(tmp_path):
    root, far = tmp_path / 'root', tmp_path / 'far'
    write_image(root / 'a/1.jpg')
    write_image(far / '2.jpg')
    write_image(far / 'deep/3.jpg')
    (far / 'back').symlink_to(root)
    (far / 'again').symlink_to(far / 'deep')
    for name, target in {'a/more': far, 'a/up': root, 'a/self': root / 'a', 'b': far / 'deep'}.items():
        (root / name).symlink_to(target)
    (root / 'c.jpg').symlink_to(far / '2.jpg')
    images, left_out = search(root)
    assert images == ['a/1.jpg', 'a/more/2.jpg', 'a/more/deep/3.jpg', 'b/3.jpg', 'c.jpg']
    contains = 'a link to a folder that contains it'
    assert left_out == {'a/up': contains, 'a/self': contains, 'a/more/back': contains}
    once = [os.path.relpath(file, root) for file in find_images([root]).files]  # predict wants every image once
    assert once == ['a/1.jpg', 'a/more/deep/3.jpg', 'c.jpg']


def test_a_ring_of_links_ends(tmp_path):
    for name in 'abcdef':
        write_image(tmp_path / 'far' / name / f'{name}.jpg')
        for other in 'abcdef':
            (tmp_path / 'far' / name / f'to_{other}').symlink_to(tmp_path / 'far' / other)
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root/link').symlink_to(tmp_path / 'far')
    assert len(search(tmp_path / 'root')[0]) == 6


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    write_image(tmp_path / 'a/1.jpg')
    write_image(tmp_path / 'b/2.jpg')
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith('b'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert search(tmp_path) == (['a/1.jpg'], {'b': 'a folder that cannot be opened (Permission denied)'})


@pytest.mark.parametrize(
    'content, reason',
    [
        (b'', 'empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
        (b'\n<!DOCTYPE html><title>404</title>', 'a web page'),
        (bytes(1000), 'starts with zeros'),
        (b'\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000, which is not supported'),
        (b'hello', 'not an image'),
    ],
)
def test_messages_say_what_a_file_is_instead(tmp_path, content, reason):
    assert reason in explain_content(content)
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(tmp_path / 'a.jpg')


def test_the_line_about_files_that_are_left_out():
    left_out = [LeftOut(f'{number}.heic', 'HEIC') for number in range(5)] + [LeftOut('a\x1b[31m.txt', 'not an image')]
    line = 'left out 6 of 10 files: HEIC (5): 0.heic, 1.heic, 2.heic, ...; not an image (1): a\\x1b[31m.txt'
    assert left_out_line(left_out, used=4) == line
    assert left_out_line([], used=4) == ''


def test_images_from_outside_of_the_folder_are_reported(tmp_path, caplog):
    birds, elsewhere = tmp_path / 'birds', tmp_path / 'elsewhere'
    for path in (birds / 'a/1.png', birds / 'b/1.png', elsewhere / 'x.png', elsewhere / 'y.png'):
        write_image(path)
    (birds / 'a/inside.png').symlink_to('1.png')
    assert links_outside_line([birds / 'a/1.png', birds / 'a/inside.png'], birds) == ''
    find_images([birds])
    assert not caplog.records

    (birds / 'a/file.png').symlink_to(elsewhere / 'x.png')
    (birds / 'b/folder').symlink_to(elsewhere)
    find_images([birds])
    (record,) = caplog.records
    line = f'2 images are read from outside of {birds}, through links: {birds / "a/file.png"}, '
    assert record.getMessage().startswith(line)
    listing = read_listing(ConfigDict(dict(name='folder', dir=str(birds), split_seed=0)))
    assert sum('from outside of' in message for message in listing.messages) == 1
    (birds / 'b/folder').unlink()
    assert links_outside_line([birds / 'a/file.png'], birds).startswith('1 image is read from outside of')

    link = tmp_path / 'link'  # to the whole folder: its images are inside
    link.symlink_to(birds)
    assert links_outside_line([link / 'a/1.png'], link) == ''


def test_links_to_themselves_and_names_that_no_file_has(tmp_path):
    birds, elsewhere = tmp_path / 'birds', tmp_path / 'elsewhere'
    for path in (birds / 'a/1.png', elsewhere / 'x.png'):
        write_image(path)
    for loop in (birds / 'a/loop.png', birds / 'b', elsewhere / 'loop.png'):
        loop.symlink_to(loop.name)
    (birds / 'a/folder').symlink_to(elsewhere)
    found = search_folder(birds)
    names = ['a/1.png', 'a/folder/loop.png', 'a/folder/x.png', 'a/loop.png']
    assert [path.relative_to(birds).as_posix() for path in found.images] == names
    names = [f'{"x" * 5000}.png', f'{"x" * 5000}/1.png', 'a\0.png', 'a\0/1.png', 'a/loop.png/1.png']
    assert links_outside_line([birds / name for name in names], birds) == ''
