"""The --config file of a command: finds it, and reports its errors in one line."""

import os
import re
import traceback
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from ssanet_jax.config_imports import allow_imports
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.runs.aliases import rename_fields

_PACKAGE = Path(__file__).parent


def use_packaged_files(argv: list[str]) -> list[str]:
    """The command line with paths of --config files that exist, as config_flags takes them.

    `~` is expanded, and `configs/NAME.py` is the package's own where no such file exists in the working directory.

    Raises:
      UserError: the path has a ':', which separates the variant, or no home folder.
    """
    found = list(argv)
    for index, (argument, following) in enumerate(zip(argv, [*argv[1:], ''])):
        name, equals, value = argument.partition('=')
        if name not in ('-config', '--config'):
            continue
        value = value if equals else following
        if not value:
            continue
        text, colon, variant = _split_variant(value)
        path = user_path(text, '--config')
        if path.parent == Path('configs') and not path.exists() and (_PACKAGE / path).is_file():
            path = _PACKAGE / path
        if ':' in str(path):
            path = Path(os.path.relpath(path))
            if ':' in str(path):
                raise UserError(
                    f"--config={text}: a ':' separates the variant, so no folder may have one: rename it, or start the "
                    'command in that folder'
                )
        if path.is_file():
            allow_imports(path)
        value = f'{path}{colon}{variant}'
        found[index if equals else index + 1] = f'{name}={value}' if equals else value
    return found


def _split_variant(value: str) -> tuple[str, str, str]:
    """Splits a --config value after the file, whose path may contain ':' too."""
    parts = value.split(':')
    for end in range(len(parts), 1, -1):
        path = ':'.join(parts[:end])
        if path.endswith('.py') and os.path.isfile(os.path.expanduser(path)):
            return path, ':' * (end < len(parts)), ':'.join(parts[end:])
    return value.partition(':')


def check_exists(argv: list[str]) -> None:
    """Raises `UserError` for a --config file that does not exist.

    config_flags would not complain before the first field is read, and then with a traceback.
    """
    for value in _values(argv):
        path = value.partition(':')[0]
        if not Path(path).is_file():
            raise UserError(f'there is no configuration file {path!r}: check --config')


def is_given(argv: list[str]) -> bool:
    """Whether the command line has a --config flag."""
    return bool(_values(argv))


def load(argv: list[str]) -> ConfigDict:
    """The configuration of the command line, without its overrides."""
    return config_flags.ConfigFileFlagParser('config').parse(_values(argv)[-1])


def check_content() -> None:
    """Reads the configuration of the parsed flags, and renames fields that it sets under old names.

    Raises:
      UserError: `get_config` does not return a ConfigDict.
      OSError: the file could not be read.
    """
    if 'config' in flags.FLAGS and config_flags.is_config_flag(flags.FLAGS['config']):
        config = flags.FLAGS['config'].value
        getattr(config, 'lock', None)  # raises the OSError that config_flags has kept
        if not isinstance(config, ConfigDict):
            path = config_flags.get_config_filename(flags.FLAGS['config'])
            raise UserError(f'get_config of {path} returns no ConfigDict: see configs/common.py')
        rename_fields(config, config_flags.get_override_values(flags.FLAGS['config']))


def explain(argv: list[str], error: Exception) -> str | None:
    """The problem with the --config file, if the error arose there."""
    if isinstance(error, OSError):
        files = ' '.join(_values(argv)[-1:])
        return f'{files} is not a valid configuration file: {error.__cause__ or error}'
    load = config_flags.ConfigFileFlagParser.parse.__code__
    cause: BaseException = error
    if isinstance(cause, flags.Error):
        cause = cause.__context__ or cause  # the error that the file raised
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    values = [frame.f_locals['path'] for frame in frames if frame.f_code is load]
    if not values:
        return None
    path, colon, variant = values[0].partition(':')
    if isinstance(cause, (TypeError, ValueError)) and cause.__context__:
        cause = cause.__context__  # `load` puts a whole traceback into the message of the one it raises
    steps = list(traceback.walk_tb(cause.__traceback__))
    if steps[-1][0].f_code is load:  # it reached the file, but not get_config
        if isinstance(cause, AttributeError):
            return f'{path} has no get_config: give a configuration file, such as configs/cub.py'
        if 'positional argument' in str(cause):
            if colon:
                return f'{path} has no variants, such as {variant!r}: give --config={path}'
            return f'{path} requires the name of a variant: give --config={path}:NAME'
    if isinstance(cause, SyntaxError):
        file, line, problem = cause.filename or path, cause.lineno, cause.msg
    else:
        own = [line for frame, line in steps if Path(frame.f_code.co_filename).absolute() == Path(path).absolute()]
        file, line, problem = path, own[-1] if own else None, f'{type(cause).__name__}: {cause}'
    where = f'{file} line {line}' if line else file
    return f'{path} is not a valid configuration file: {where}: {problem}'


def unknown_field(argv: list[str]) -> str | None:
    """The first override of a field that the configuration does not have, as the user typed it."""
    if not is_given(argv):
        return None
    # config_flags does not say which override failed, so each is looked up again.
    config = load(argv)
    for argument in argv[1:]:
        name = argument.partition('=')[0].lstrip('-')
        if argument.startswith('-') and re.match(r'(no)?config\.', name):
            try:
                config_flags.GetType(name.partition('.')[2], config)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                meant = re.search(r'Did you mean \\*"(\w+)', str(error))
                hint = f' (did you mean {meant[1]}?)' if meant else ''
                return f'the configuration has no field {name}{hint}: check the spelling against the --config file'
    return None


def fields_named(argv: list[str], name: str) -> list[str]:
    """The flags of all fields of the configuration that have this name, such as '--config.data.batch_size'.

    Args:
      argv: the command line.
      name: the name of a flag that does not exist, such as 'batch_size'.
    """
    if not is_given(argv):
        return []
    try:
        config = load(argv)
    except Exception:  # the file has an error, which is not about this flag
        return []
    sections: list[tuple[str, Any]] = [('config', config)]
    found = []
    for path, section in sections:  # which grows
        for field, value in section.items():
            if field == name:
                found.append(f'--{path}.{field}')
            if isinstance(value, ConfigDict):
                sections.append((f'{path}.{field}', value))
            elif isinstance(value, tuple) and all(isinstance(item, ConfigDict) for item in value):
                sections += [(f'{path}.{field}[{index}]', item) for index, item in enumerate(value)]
    return found


def _values(argv: list[str]) -> list[str]:
    """The value of each --config flag."""
    found = []
    for argument, following in zip(argv, [*argv[1:], '']):
        name, equals, value = argument.partition('=')
        if name in ('-config', '--config'):
            found.append(value if equals else following)
    return found
