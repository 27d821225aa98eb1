"""Which folders are splits and which are classes, from the paths of the images alone.

Archives unpack to many layouts. These are understood, with any of the names of `SPLIT_WORDS` for a split:

* ``train/CLASS/``, ``test/CLASS/``, also with a common prefix or suffix (``birds_train/``, ``test_images/``);
* ``CLASS/`` only, for a random split;
* ``CLASS/train/``, ``CLASS/test/``;
* each of them below folders that hold nothing else (``archive/birds/train/train/CLASS/``).

Anything else is refused with a message that shows what was found.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ssanet_jax.data.image_tree import Node
from ssanet_jax.data.left_out import LeftOut, counted, first_names
from ssanet_jax.errors import UserError

SPLIT_WORDS = {
    'train': 'train',
    'test': 'test',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'training': 'train',
    'trainval': 'train',
    'testing': 'test',
    'dev': 'val',
    'eval': 'test',
    'evaluation': 'test',
    'holdout': 'test',
}
"""Names of splits, in folders and in CSV files, in lower case -> 'train', 'val' or 'test'."""
# Words beside that of the split which say nothing: train_images, TestSet.
_FILLER = frozenset('image images img imgs set data dataset folder split photos pictures files'.split())
_LIKE_A_SPLIT = re.compile('train|test|val', re.IGNORECASE)  # Trainingsdaten
_MAX_WRAPPERS = 5  # folders around a data set that hold nothing else

Files = dict[str, list[str]]
"""Class name -> sorted paths of its images, relative to the root."""


@dataclasses.dataclass
class Layout:
    """The splits and classes that the folders of a data set stand for."""

    splits: dict[str, Files]
    """Images of 'train', 'val' and 'test' as far as there are any, or of '' if the folders name no splits."""
    left_out: list[LeftOut]
    """Images that belong to no class."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a user may not expect, a sentence each."""
    class_parents: list[str] = dataclasses.field(default_factory=list)
    """The folders that hold the class folders, relative to the root; '' is the root."""

    def class_of(self, path: str) -> str | None:
        """The class folder that a file lies in, whether or not that folder holds images; None if in none."""
        for parent in self.class_parents:
            prefix = f'{parent}/' if parent else ''
            if path.startswith(prefix) and '/' in path.removeprefix(prefix):
                return path.removeprefix(prefix).partition('/')[0]
        return None


def split_of_name(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Reads the name of a folder as that of a split.

    Args:
      name: such as 'Train', 'birds_test', 'validation-images' or 'train2017'.

    Returns:
      ('train', 'val' or 'test', the other words of the name), or None if it names no split.
    """
    spaced = re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name)  # TrainSet
    words = []
    for word in re.findall(r'\d+|[^\W\d_]+', spaced.lower()):
        joined = (split for split in SPLIT_WORDS if word.startswith(split) and word.removeprefix(split) in _FILLER)
        words.append(next(joined, word))  # trainset
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if splits == {'train', 'val'}:  # train_val
        splits = {'train'}
    if len(splits) != 1:
        return None
    others = tuple(word for word in words if word not in SPLIT_WORDS and word not in _FILLER)
    return splits.pop(), others


def understand(paths: Iterable[str], root: Path, class_names: Collection[str] = ()) -> Layout:
    """Finds the splits and classes of a folder of images.

    Args:
      paths: the images, relative to the root.
      root: the folder, for messages.
      class_names: the classes of a trained network, if the images are for its evaluation.

    Raises:
      UserError: the folders have no clear meaning; the message says what was found.
    """
    node = Node.from_paths(sorted(paths))
    left_out: list[LeftOut] = []
    for _ in range(_MAX_WRAPPERS):
        splits = _split_folders(node, root)
        if splits:
            return _understand_splits(node, splits, root, class_names, left_out)
        inner = _data_sets(node)
        if len(inner) > 1:
            raise UserError(
                f'{root / node.path} holds several data sets with splits ({first_names([n.path for n in inner])}): '
                'set config.data.dir to one of them'
            )
        wrapped = inner or ([*node.folders.values()] if _is_wrapper(node) else [])
        if not wrapped:
            break
        (kept,) = wrapped
        left_out += _outside(node, kept, 'outside the data set')
        node = kept
    if inverted := _splits_in_classes(node, left_out):
        return Layout(inverted, left_out, [], [node.path])
    files = _class_files(node, left_out)
    return Layout({'': files} if files else {}, left_out, _nested_note(node, files, root), [node.path])


def _split_folders(node: Node, root: Path) -> dict[str, Node]:
    """The folders of `node` that are splits, by split; empty if its folders are classes or wrappers."""
    named = {name: split for name in node.folders if (split := split_of_name(name))}
    others = [name for name in node.folders if name not in named]
    groups: dict[tuple[str, ...], dict[str, list[Node]]] = {}
    for name, (split, words) in named.items():
        groups.setdefault(words, {}).setdefault(split, []).append(node.folders[name])
    labelled = lambda group: any(not folder.is_flat for folder in group.get('train', []))
    pairs = [group for group in groups.values() if labelled(group) and len(group) > 1]
    if () in groups and groups[()] in pairs:
        chosen = groups[()]
    elif len(pairs) == 1:
        chosen = pairs[0]
    elif pairs:
        raise UserError(
            f'{root / node.path} holds several pairs of splits ({first_names(sorted(named))}): move all but one '
            'elsewhere, or list the images in a CSV file and set config.data.csv to it'
        )
    elif len(groups) > 1 and all(node.folders[name].is_flat for name in named):
        return {}  # classes such as bullet_train and test tube
    elif named and not others:
        chosen: dict[str, list[Node]] = {}
        for group in groups.values():
            for split, folders in group.items():
                chosen.setdefault(split, []).extend(folders)
    else:
        _refuse_doubtful_train(node, groups.get((), {}), others, root)
        return {}
    # Without the validation split, if there is a test split, nobody needs to know which one it would be.
    doubled = [
        split for split, folders in chosen.items() if len(folders) > 1 and not (split == 'val' and 'test' in chosen)
    ]
    if doubled:
        folders = ' and '.join(f'{folder.path}/' for folder in chosen[doubled[0]])
        raise UserError(
            f'{folders} in {root} both look like the {doubled[0]} split: merge them, or rename or move one of them'
        )
    return {split: folders[0] for split, folders in chosen.items()}


def _refuse_doubtful_train(node: Node, group: dict[str, list[Node]], others: Sequence[str], root: Path) -> None:
    """Raises `UserError` for a folder ``train`` that differs in depth from the classes beside it."""
    flat_others = {node.folders[name].is_flat for name in others}
    for folder in group.get('train', []):
        if not folder.is_flat and flat_others == {True}:
            raise UserError(
                f'{root / folder.path} has class folders as a split has ({first_names(sorted(folder.folders))}), but '
                f'beside it are {first_names(sorted(others))}: if it is the training split, set config.data.dir to it '
                'or add test/; if it is a class, rename its subfolders away or list the images in a CSV file'
            )


def _data_sets(node: Node) -> list[Node]:
    """The folders of `node` that hold a training and another split, each with class folders."""
    found = []
    for folder in node.folders.values():
        splits = {
            split[0] for name, inner in folder.folders.items() if not inner.is_flat and (split := split_of_name(name))
        }
        if 'train' in splits and len(splits) > 1:
            found.append(folder)
    return found


def _is_wrapper(node: Node) -> bool:
    """Whether the only folder of `node` holds class folders rather than the images of one class."""
    folders = list(node.folders.values())
    return len(folders) == 1 and not folders[0].is_flat and not folders[0].images


def _understand_splits(
    node: Node, splits: dict[str, Node], root: Path, class_names: Collection[str], left_out: list[LeftOut]
) -> Layout:
    for folder in node.folders.values():
        if folder not in splits.values():
            left_out += [LeftOut(path, 'outside the splits') for path in folder.all_images()]
    left_out += [LeftOut(path, 'outside the splits') for path in node.images]
    notes: list[str] = []
    flat = {split: inner for split, folder in splits.items() if (inner := _without_classes(folder, class_names))}
    if 'test' in flat and 'val' in splits and 'val' not in flat:
        notes.append(f'{splits["test"].path}/ is not used: its images lie in no class folders, so they have no labels')
        left_out += [LeftOut(path, 'without a class folder') for path in splits.pop('test').all_images()]
    elif flat and not (list(flat) == ['val'] and 'test' in splits):
        first, unlabeled = next(iter(flat.items()))
        folder = splits[first]
        cure = f'move the images of each class into a folder, {folder.path}/CLASS/'
        if first != 'train' and 'train' in splits and 'train' not in flat:
            cure += (
                f', or set config.data.dir to {root / splits["train"].path} to draw a random split of it (predict '
                'takes images without labels)'
            )
        raise UserError(
            f'{root / unlabeled.path} holds {counted(len(unlabeled.images), "image")} in no class folders, so they '
            f'have no labels: {cure}, or list the images in a CSV file and set config.data.csv to it'
        )
    splits = splits | {split: inner for split, inner in flat.items() if split in splits}
    levels: dict[str, Node] = {}
    known = class_names
    for split in ('train', 'test', 'val'):  # the classes of the training split say which level of others is theirs
        if split in splits:
            levels[split] = _class_level(splits[split], known, left_out)
            known = known or levels[split].folders
    files = {split: _class_files(level, left_out) for split, level in levels.items()}
    if 'train' in levels:
        notes += _nested_note(levels['train'], files['train'], root)
    return Layout(files, left_out, notes, [level.path for level in levels.values()])


def _without_classes(split: Node, class_names: Collection[str]) -> Node | None:
    """The folder with the images of a split that has no class folders: the split, or ``images/`` as its only folder."""
    if split.is_flat:
        return split
    name, folder = next(iter(split.folders.items()))
    says_nothing = set(re.findall(r'[^\W_]+', name.lower())) <= _FILLER and name not in class_names
    return folder if len(split.folders) == 1 and folder.is_flat and says_nothing else None


def _class_level(split: Node, class_names: Collection[str], left_out: list[LeftOut]) -> Node:
    """The folder of a split that holds its class folders: the split, or a folder below it that is alone there."""
    levels = [split]
    while len(levels) <= _MAX_WRAPPERS and _is_wrapper(levels[-1]):
        levels += levels[-1].folders.values()
    matching = [level for level in levels if set(level.folders) <= set(class_names)] if class_names else []
    chosen = (matching or [levels[-1]])[0]
    for level, inner in itertools.pairwise(levels):
        if level is chosen:
            break
        left_out += _outside(level, inner, 'outside the class folders')
    return chosen


def _outside(node: Node, kept: Node, reason: str) -> list[LeftOut]:
    """The images of `node` that are not in its folder `kept`."""
    others = [path for folder in node.folders.values() if folder is not kept for path in folder.all_images()]
    return [LeftOut(path, reason) for path in (*node.images, *others)]


def _class_files(node: Node, left_out: list[LeftOut]) -> Files:
    """The images of each class folder; images beside them, and a second copy of them, are left out."""
    left_out += [LeftOut(path, 'outside the class folders') for path in node.images]
    files = {}
    for name, folder in node.folders.items():
        names = set(folder.folders)
        if names and not folder.images and names <= node.folders.keys() - {name}:
            left_out += [LeftOut(path, 'a second copy of the class folders') for path in folder.all_images()]
        else:
            files[name] = sorted(folder.all_images())
    return files


def _splits_in_classes(node: Node, left_out: list[LeftOut]) -> dict[str, Files]:
    """Reads ``CLASS/train/``, ``CLASS/test/``; empty if the folders are not like that."""
    splits: dict[str, Files] = {}
    for name, folder in node.folders.items():
        for inner_name, inner in folder.folders.items():
            split = split_of_name(inner_name)
            if folder.images or not split or split[1] or not inner.is_flat:
                return {}
            splits.setdefault(split[0], {}).setdefault(name, []).extend(inner.images)
        if folder.is_flat:
            return {}
    if 'train' not in splits or len(splits) < 2:
        return {}
    left_out += [LeftOut(path, 'outside the class folders') for path in node.images]
    return splits


def _nested_note(node: Node, files: Files, root: Path) -> list[str]:
    """A note if every class consists of subfolders, which may be the classes that the user means.

    Raises:
      UserError: the classes seem to be splits with names that are not in `SPLIT_WORDS`.
    """
    classes = [node.folders[name] for name in sorted(files)]
    inner = {name for folder in classes for name in folder.folders}
    shared = all(folder.folders.keys() == inner for folder in classes)
    if not classes or any(folder.images for folder in classes) or (shared and len(inner) == 1):
        return []
    if shared and 2 * sum(bool(_LIKE_A_SPLIT.search(name)) for name in files) >= len(files):
        raise UserError(
            f'{root / node.path} has the same folders ({first_names(sorted(inner))}) in each of '
            f'{first_names(sorted(files))}, which look like splits: rename these to train and test'
        )
    first = classes[0]
    note = (
        f'each folder is one class with all its subfolders, such as {first.path} with '
        f'{first_names(sorted(first.folders))}: for the subfolders as classes, move them one level up'
    )
    return [note]
