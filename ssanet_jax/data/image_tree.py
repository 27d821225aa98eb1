"""The folders that hold images, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Node:
    """A folder with images in it or below it.

    Args:
      path: the folder, relative to the root; '' for the root.
    """

    def __init__(self, path: str = ''):
        self.path = path
        self.folders: dict[str, Node] = {}
        self.images: list[str] = []

    @classmethod
    def from_paths(cls, paths: Iterable[str]) -> Node:
        """Builds the tree of some images' folders from their paths, relative to the root."""
        root = cls()
        for path in paths:
            node = root
            for name in path.split('/')[:-1]:
                inside = f'{node.path}/{name}' if node.path else name
                node = node.folders.setdefault(name, cls(inside))
            node.images.append(path)
        return root

    def all_images(self) -> Iterator[str]:
        """The images of the folder and its subfolders."""
        yield from self.images
        for folder in self.folders.values():
            yield from folder.all_images()

    @property
    def is_flat(self) -> bool:
        """Whether no subfolder holds images."""
        return not self.folders
