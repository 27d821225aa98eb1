"""Names of pictures."""

from ssanet_jax.prediction_files.picture_names import PictureNames


def test_no_two_files_share_a_name():
    files = ['a/x.jpg', 'a/x.jpeg', 'b/x.jpg', 'x.png', '../x.png', 'A/X.JPG', 'y' * 240, 'é' * 120]
    name = PictureNames(files)
    names = [name(file) for file in files]
    assert names[1:3] == ['a_x.jpeg.png', 'b_x.jpg.png']
    assert names[0].endswith('_a_x.jpg.png') and names[3].endswith('_x.png.png')
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name.encode()) < 255 for name in names)


def test_a_file_that_is_given_twice_has_one_picture():
    assert PictureNames(['x.png'] * 2)('x.png') == 'x.png.png'
