"""Names of classes that look alike are matched, or reported."""

import unicodedata

import pytest
from data_samples import write_image
from hypothesis import given
from hypothesis import strategies as st

from ssanet_jax.data.class_names import match_class_names
from ssanet_jax.data.folder import read_folder
from ssanet_jax.errors import UserError

COMPOSED, SEPARATE = (unicodedata.normalize(form, 'Kormorän') for form in ('NFC', 'NFD'))


def _match(train=(), test=(), class_names=(), **others):
    splits = {'train': {name: [f'train/{name}/1.png'] for name in train}}
    splits |= {'test': {name: [f'test/{name}/1.png'] for name in test}}
    return match_class_names({**splits, **others}, class_names)


@pytest.mark.parametrize('train, test', [(COMPOSED, SEPARATE), (SEPARATE, COMPOSED)])
def test_the_unicode_form_does_not_matter_and_the_spelling_of_the_training_split_is_kept(train, test):
    splits, notes = _match([train, 'wren'], [test, 'wren'])
    assert splits['train'].keys() == splits['test'].keys() == {train, 'wren'}
    assert splits['test'][train] == [f'test/{test}/1.png'] and not notes


def test_two_forms_in_one_split_are_one_class():
    splits, notes = match_class_names({'': {COMPOSED: ['b'], SEPARATE: ['a'], 'wren': ['c']}})
    assert list(splits[''].values()) == [['a', 'b'], ['c']] and not notes


def test_a_trained_network_keeps_its_spelling():
    splits, _ = _match([COMPOSED, 'wren'], [COMPOSED], class_names=[SEPARATE, 'wren'])
    assert splits['train'].keys() == {SEPARATE, 'wren'} and splits['test'].keys() == {SEPARATE}
    splits, notes = _match([], ['WREN', COMPOSED], class_names=[SEPARATE, 'wren'])
    assert splits['test'].keys() == {SEPARATE, 'wren'} and 'WREN for wren' in notes[0]
    # An earlier version took both for classes.
    splits, _ = _match([COMPOSED, SEPARATE], [], class_names=[COMPOSED, SEPARATE])
    assert splits['train'].keys() == {COMPOSED, SEPARATE}


def test_another_case_in_the_test_split_is_matched_and_said():
    splits, notes = _match(['Robin', 'wren'], ['robin', 'Wren'])
    assert splits['test'].keys() == {'Robin', 'wren'}
    assert notes == ['names of classes that differ only in case are taken for the same: Wren for wren, robin for Robin']


def test_another_case_is_not_guessed_if_two_classes_fit():
    splits, notes = _match(['Robin', 'robin'], ['ROBIN', 'robin'])
    assert splits['test'].keys() == {'ROBIN', 'robin'}
    assert notes == [
        'names of classes that look alike: ROBIN = Robin = robin; merge their folders if they are one class'
    ]


@pytest.mark.parametrize(
    'names',
    [
        ('Robin', 'robin'),
        ('house_sparrow', 'House Sparrow'),
        ('house-sparrow', 'house sparrow'),
        ('\uff37ren', 'Wren'),  # full width
        ('straße', 'STRASSE'),
        ('wren\u200b', 'wren'),
        ('wren\u00a01', 'wren 1'),
        ('ﬁnch', 'finch'),
    ],
)
def test_names_that_look_alike_are_reported(names):
    for splits in ({'train': names}, {'': names}):
        _, notes = match_class_names({split: {name: [name] for name in names} for split, names in splits.items()})
        assert (
            len(notes) == 1
            and notes[0].startswith('names of classes that look alike: ')
            and '\u200b' * 2 not in notes[0]
        )


@given(st.lists(st.text(max_size=4), unique=True), st.lists(st.text(max_size=4), unique=True))
def test_no_image_is_lost_and_no_class_is_left_over(train, test):
    splits, _ = _match(train, test)
    for split, names in (('train', train), ('test', test)):
        paths = [path for files in splits[split].values() for path in files]
        assert sorted(paths) == sorted(f'{split}/{name}/1.png' for name in names)
        assert all(paths == sorted(paths) for paths in splits[split].values())
    assert _match(splits['train'], splits['test'])[0].keys() == splits.keys()


def test_folders_and_tables(tmp_path):
    for folder in (f'train/{COMPOSED}', 'train/Wren', f'test/{SEPARATE}', 'test/wren'):
        write_image(tmp_path / folder / '1.png')
    listing = read_folder(tmp_path)
    assert listing.class_names == (COMPOSED, 'Wren') and listing.counts == {'train': 2, 'test': 2}
    assert [record.path for record in listing.records if record.split == 'test'] == [
        f'test/{SEPARATE}/1.png', 'test/wren/1.png',
    ]  # fmt: skip
    assert 'wren for Wren' in listing.messages[0]
    (tmp_path / 'list.csv').write_text(
        f'path,label,split\ntrain/Wren/1.png,Wren,train\ntest/wren/1.png,WREN,test\n'
        f'train/{COMPOSED}/1.png,{SEPARATE},train\ntest/{SEPARATE}/1.png,{COMPOSED},test\n',
        encoding='utf-8',
    )
    listing = read_folder(tmp_path, table=tmp_path / 'list.csv')
    assert listing.class_names == (SEPARATE, 'Wren') and 'WREN for Wren' in listing.messages[0]


def test_other_names_are_still_refused(tmp_path):
    for folder in ('train/Wren', 'train/emu', 'test/wrens'):
        write_image(tmp_path / folder / '1.png')
    with pytest.raises(UserError, match='classes without training images'):
        read_folder(tmp_path)
