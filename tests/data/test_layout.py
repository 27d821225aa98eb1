"""Splits and classes as folders name them: understood, or refused with a message that shows what was found."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssanet_jax.data import layout
from ssanet_jax.errors import UserError

ROOT = Path('/birds')


def images(pattern: str, count: int = 2) -> list[str]:
    """'train,test/owl,emu' -> the paths train/owl/0.jpg, train/owl/1.jpg, train/emu/0.jpg, ..."""
    paths = ['']
    for level in pattern.split('/'):
        paths = [f'{path}/{name}'.lstrip('/') for path in paths for name in level.split(',')]
    return [f'{path}/{number}.jpg' for path in paths for number in range(count)]


def understood(*patterns: str, class_names=()) -> dict[str, list[str]]:
    """The classes of each split."""
    found = layout.understand([path for pattern in patterns for path in images(pattern)], ROOT, class_names)
    return {split: sorted(files) for split, files in found.splits.items()}


BOTH = {'train': ['emu', 'owl'], 'test': ['emu', 'owl']}
THREE = {**BOTH, 'val': ['emu', 'owl']}


@pytest.mark.parametrize(
    'patterns, expected',
    [
        (['train,test/owl,emu'], BOTH),
        (['TRAIN,Testing/owl,emu'], BOTH),
        (['training,evaluation,validation/owl,emu'], THREE),
        (['train,dev,holdout/owl,emu'], THREE),
        (['birds-train,birds-test/owl,emu'], BOTH),
        (['TrainingSet,TestSet/owl,emu'], BOTH),
        (['train_images,eval images/owl,emu'], BOTH),
        (['train2017,val2017/owl,emu'], {'train': ['emu', 'owl'], 'val': ['emu', 'owl']}),
        (['trainval,test/owl,emu'], BOTH),
        (['archive/birds/train,test/owl,emu'], BOTH),
        (['seg_train/seg_train/owl,emu', 'seg_test/seg_test/owl,emu', 'seg_pred/seg_pred'], BOTH),
        (['train/images/owl,emu', 'test/images/owl'], {'train': ['emu', 'owl'], 'test': ['owl']}),
        (['train/owl,emu', 'test/owl/day,night'], {'train': ['emu', 'owl'], 'test': ['owl']}),
        (['owl,emu/train,test'], BOTH),
        (['owl,emu/train,test,val'], THREE),
        (['birds/train,test/owl,emu', 'docs'], BOTH),
        (['owl,emu'], {'': ['emu', 'owl']}),
        (['birds/birds/owl,emu'], {'': ['emu', 'owl']}),
        (['owl,emu/images'], {'': ['emu', 'owl']}),
        (['bus,car,train'], {'': ['bus', 'car', 'train']}),
        (['bus,car,train/2019,2020'], {'': ['bus', 'car', 'train']}),
        (['bus,car,train,test'], {'': ['bus', 'car', 'test', 'train']}),
        (['bullet_train,test tube'], {'': ['bullet_train', 'test tube']}),
        (['owl,emu', 'birds/owl,emu'], {'': ['emu', 'owl']}),
        (['train,test/owl,emu', 'train/train/owl,emu'], BOTH),
        (['train,train_masks,test/owl,emu'], BOTH),
        (['train,val/owl,emu', 'test'], {'train': ['emu', 'owl'], 'val': ['emu', 'owl']}),
        (['train,val/owl,emu', 'test/images'], {'train': ['emu', 'owl'], 'val': ['emu', 'owl']}),
        (['train,test/owl,images', 'val/images'], {'train': ['images', 'owl'], 'test': ['images', 'owl'], 'val': []}),
        ([], {}),
    ],
)
def test_layouts(patterns, expected):
    assert understood(*patterns) == expected


@pytest.mark.parametrize(
    'patterns, message',
    [
        (['Train,train,test/owl,emu'], 'Train/ and train/ in /birds both look like the train split'),
        (['train,val,valid/owl,emu'], 'val/ and valid/ in /birds both look like the val split'),
        (['train,test,evaluation/owl,emu'], 'evaluation/ and test/ in /birds both look like the test split'),
        (
            ['train/owl,emu', 'test'],
            '/birds/test holds 2 images in no class folders, .* test/CLASS/, or .*/birds/train',
        ),
        (['train,test'], '/birds/test holds 2 images in no class folders'),
        (['train', 'test/owl,emu'], '/birds/train holds 2 images in no class folders'),
        (
            ['train/owl,emu/images', 'val,test/images'],  # Tiny ImageNet
            '/birds/test/images holds 2 images in no class folders, .* test/CLASS/, or .*/birds/train to draw a random',
        ),
        (['train/owl,emu/images', 'val/images'], '/birds/val/images holds 2 images in no class folders, .* val/CLASS/'),
        (['images/train,val'], '/birds/images/train holds 2 images in no class folders'),
        (['birds,cars/train,test/owl,emu'], r'holds several data sets with splits \(birds, cars\)'),
        (['birds_train,birds_test,cars_train,cars_test/owl,emu'], 'several pairs of splits'),
        (['train/owl,emu', 'unlabeled'], r'/birds/train has class folders as a split has \(emu, owl\)'),
        (['Trainingsdaten,Testdaten/owl,emu'], r'the same folders \(emu, owl\) in each of Testdaten, Trainingsdaten'),
    ],
)
def test_refused_layouts(patterns, message):
    with pytest.raises(UserError, match=message) as caught:
        understood(*patterns)
    assert '\n' not in str(caught.value)


def test_several_data_sets_beside_an_image_are_refused():
    paths = [*images('birds,cars/train,test/owl,emu'), 'cover.jpg']
    with pytest.raises(UserError, match=r'holds several data sets with splits \(birds, cars\)'):
        layout.understand(paths, ROOT)


def test_the_classes_of_a_network_say_which_folders_are_classes():
    names = ('emu', 'kiwi', 'owl')
    for pattern in ('test/owl,emu', 'Testing/owl,emu', 'field/test/images/owl,emu'):
        assert understood(pattern, class_names=names) == {'test': ['emu', 'owl']}
    assert understood('test/owl/day,night', class_names=names) == {'test': ['owl']}


def test_images_of_no_class_are_left_out():
    paths = [*images('train,test/owl,emu'), 'cover.jpg', 'train/loose.jpg', 'more/extra.jpg']
    found = layout.understand(paths, ROOT)
    assert sorted((item.path, item.reason) for item in found.left_out) == [
        ('cover.jpg', 'outside the splits'),
        ('more/extra.jpg', 'outside the splits'),
        ('train/loose.jpg', 'outside the class folders'),
    ]


def test_classes_of_subfolders_are_said():
    (note,) = layout.understand(images('birds/owl,emu') + images('cars/audi,fiat'), ROOT).notes
    assert 'birds with emu, owl' in note
    assert not layout.understand(images('owl,emu/images'), ROOT).notes


NAMES = st.sampled_from(['train', 'Test', 'val', 'owl', 'emu', 'images', 'birds_train', 'birds_test', 'x'])


@settings(max_examples=300, deadline=None)
@example([[], ['birds', 'train', 'owl'], ['cars', 'train', 'owl']])
@given(st.lists(st.lists(NAMES, max_size=5), max_size=12))
def test_every_image_is_used_once_or_left_out(folders):
    """Whatever the folders are: no image is lost without a word, none is used twice, and nothing crashes."""
    paths = sorted({'/'.join([*folder, f'{number}.jpg']) for number, folder in enumerate(folders)})
    try:
        found = layout.understand(paths, ROOT)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    used = [path for files in found.splits.values() for inside in files.values() for path in inside]
    assert sorted(used + [item.path for item in found.left_out]) == paths
