"""`from configs import ...` in configuration files, started from any folder."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_PACKAGE = 'ssanet_jax'


class _Alias(importlib.abc.Loader):
    """Gives a module of the package a second name."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        self._module = importlib.import_module(f'{_PACKAGE}.{spec.name}')
        self._spec = self._module.__spec__
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has just replaced


class _SharedConfigs(importlib.abc.MetaPathFinder):
    """Finds `configs` and its modules in the package, where no folder of the user has them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition('.')[0] != 'configs' or not importlib.util.find_spec(f'{_PACKAGE}.{fullname}'):
            return None
        return importlib.machinery.ModuleSpec(fullname, _Alias(), is_package=fullname == 'configs')


def allow_imports(file: Path) -> None:
    """Lets a configuration file import the modules beside it, and `configs`: the user's own, else the package's.

    Args:
      file: the configuration file.
    """
    folder = file.absolute().parent
    if folder.name == 'configs':  # its own package comes first, as if the command were started in the folder above
        sys.path.insert(0, str(folder.parent))
        if not (folder / '__init__.py').exists():  # a folder without one loses to any package of that name
            sys.modules['configs'] = ModuleType('configs')
            sys.modules['configs'].__path__ = [str(folder)]
    elif str(folder) not in sys.path:
        sys.path.append(str(folder))
    if not any(isinstance(finder, _SharedConfigs) for finder in sys.meta_path):
        sys.meta_path.append(_SharedConfigs())
