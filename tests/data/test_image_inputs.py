"""Images as users have them: files and folders are expanded to files, each once."""

from PIL import Image

from ssanet_jax.data.image_inputs import expand_folders, find_images


def test_a_folder_named_like_an_image_is_not_an_image(tmp_path):
    """Its images are found once, and an empty one is not an error."""
    (tmp_path / 'a.jpg').mkdir()
    (tmp_path / 'empty.png').mkdir()
    for name in ('a.jpg/inside.png', 'b.png'):
        Image.new('RGB', (4, 4)).save(tmp_path / name)
    files = find_images([tmp_path]).files
    assert files == [tmp_path / 'a.jpg/inside.png', tmp_path / 'b.png']
    assert list(expand_folders(files)) == files


def test_a_dangling_link_is_left_to_its_reader_to_report(tmp_path):
    (tmp_path / 'a.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    assert find_images([tmp_path]).files == [tmp_path / 'a.jpg']
