"""Flags whose values are paths, all read by `user_path`."""

from pathlib import Path

from absl import flags

from ssanet_jax.filesystem.paths import user_path

flags.disclaim_key_flags()  # they belong to the command that defines them, whose --help lists them


class _PathParser(flags.ArgumentParser[Path]):
    def __init__(self, name: str):
        self.syntactic_help = 'a path'
        self._name = name

    def parse(self, argument: str | Path) -> Path:
        return user_path(argument, f'--{self._name}')

    def flag_type(self) -> str:
        return 'path'


def define_path(name: str, default: str | None, help: str, *, required: bool = False) -> flags.FlagHolder[Path]:
    """Defines a flag with a path; its value is a `Path`, or None if it is not given and has no default.

    Args:
      name: name of the flag.
      default: the path if the flag is not given.
      help: text for `--help`.
      required: whether the flag must be given.
    """
    return flags.DEFINE(
        _PathParser(name), name, default, help, serializer=flags.ArgumentSerializer(), required=required
    )


def define_paths(name: str, help: str) -> flags.FlagHolder[list[Path]]:
    """Defines a required flag with a path that may be given several times; its value is the list of them."""
    return flags.DEFINE_multi(_PathParser(name), flags.ArgumentSerializer(), name, None, help, required=True)
