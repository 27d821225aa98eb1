"""What all commands share: flags, one-line errors with exit code 2, and the compilation cache."""

import contextlib
import errno
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from ssanet_jax.errors import UserError
from ssanet_jax.runs.aliases import rename_fields, upgrade_arguments
from ssanet_jax.runs.files import write_whole

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}  # as XLA abbreviates bytes


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags of the command line, runs `main` on the positional arguments, and leaves the process.

    A `UserError` or a wrong flag ends with one line on stderr and exit code 2, Ctrl-C with 130.
    """
    try:
        arguments = _parse(sys.argv)
        _use_compilation_cache()
        main(arguments)
    except UserError as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if short := _memory_shortage(error):
            _leave(short, 2)
        if isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1:
            # Most likely one of the others is gone.
            _leave(
                f'error: the work with the other processes broke off ({" ".join(str(error).split())[:200]}): start all '
                'of them again, training goes on from the last checkpoint',
                1,
            )
        if not _disk_is_full(error):
            raise
        print(
            'error: the disk is full: make room and give the same command again; training goes on from the last '
            'checkpoint that was finished',
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted: give the same command again; a training goes on from its last checkpoint', file=sys.stderr)
        sys.exit(130)


def config_name() -> str:
    """What a run of the configuration given with --config is called: `cub_paper` for configs/cub.py:paper.

    It names a folder, so that anything in a variant but letters, digits, '_', '-' and '.' becomes '_'.
    """
    path, _, variant = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
    return '_'.join(filter(None, (Path(path).stem, re.sub(r'[^\w.-]+', '_', variant))))


def _leave(line: str, code: int) -> NoReturn:
    """Ends the process, at once where it is one of several: at the exit it would only wait for the others."""
    print(line, file=sys.stderr, flush=True)
    if jax.process_count() > 1:
        os._exit(code)
    sys.exit(code)


def _memory_shortage(error: BaseException | None) -> str | None:
    """The line to end with, if a device without enough memory is at the bottom of it."""
    while error is not None:
        message = str(error)
        # Other things than memory are exhausted too, such as the length of a message to another process.
        if (
            isinstance(error, jax.errors.JaxRuntimeError)
            and 'RESOURCE_EXHAUSTED' in message
            and re.search('memory|allocat', message, re.IGNORECASE)
        ):
            amount = re.search(r'(?:allocat\w+|Used) (\d+(?:\.\d+)?) ?([KMGT]?)', message)
            asked = f' ({float(amount[1]) * _UNITS[amount[2]] / 2**30:.2f} GiB were asked for)' if amount else ''
            return (
                f"error: the device's memory does not suffice{asked}: set a smaller config.data.batch_size "
                '(config.data.eval_batch_size if it broke off in an evaluation), config.model.sharing=image '
                'or config.model.dtype=bfloat16, and see that no other program is on the device'
            )
        error = error.__cause__ or error.__context__
    return None


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is at the bottom of it. Checkpoints are written by C++, which says so in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _parse(argv: list[str]) -> list[str]:
    app.define_help_flags()
    _check_config_file(argv)
    try:
        argv[:] = upgrade_arguments(argv, lambda: _load_config(argv))  # config_flags reads sys.argv itself
        arguments = flags.FLAGS(argv)[1:]
        _check_config()
        return arguments
    except UserError:
        raise  # of the configuration file itself
    except Exception as error:
        if isinstance(error, OSError):  # config_flags keeps it until the first field is read
            files = ' '.join(_config_files(argv)[-1:])
            raise UserError(f'{files} is no usable configuration file: {error.__cause__ or error}') from error
        message = _broken_file(error) or _missing_flags(error) or _wrong_field(argv)
        if message:
            raise UserError(message) from error
        if isinstance(error, flags.Error):
            raise UserError(f'{error.__cause__ or error}; see --help') from error
        if isinstance(error, (TypeError, ValueError)):
            raise UserError(f'a --config override has a value of the wrong kind: {error}') from error
        raise


def _check_config_file(argv: list[str]) -> None:
    # config_flags would not complain before the first field is read, and then with a traceback.
    for value in _config_files(argv):
        path = value.partition(':')[0]  # the rest is an argument of get_config
        if not Path(path).is_file():
            raise UserError(f'there is no configuration file {path!r}: check --config')


def _config_files(argv: list[str]) -> list[str]:
    found = []
    for argument, following in zip(argv, [*argv[1:], '']):
        name, given, value = argument.partition('=')
        if name in ('-config', '--config'):
            found.append(value if given else following)
    return found


def _load_config(argv: list[str]) -> ConfigDict:
    """The configuration of the command line, without its overrides."""
    return config_flags.ConfigFileFlagParser('config').parse(_config_files(argv)[-1])


def _check_config() -> None:
    if 'config' in flags.FLAGS and config_flags.is_config_flag(flags.FLAGS['config']):
        config = flags.FLAGS['config'].value
        getattr(config, 'lock', None)  # raises the OSError of a file that could not be read
        if not isinstance(config, ConfigDict):
            path = config_flags.get_config_filename(flags.FLAGS['config'])
            raise UserError(f'get_config of {path} returns no ConfigDict: see configs/common.py')
        rename_fields(config, config_flags.get_override_values(flags.FLAGS['config']))


def _broken_file(error: BaseException) -> str | None:
    """What is wrong with the --config file, if that is where the error arose."""
    load = config_flags.ConfigFileFlagParser.parse.__code__
    if isinstance(error, flags.Error):
        error = error.__context__ or error  # what the file raised
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    values = [frame.f_locals['path'] for frame in frames if frame.f_code is load]
    if not values:
        return None
    path, colon, variant = values[0].partition(':')
    if isinstance(error, (TypeError, ValueError)) and error.__context__:
        error = error.__context__  # `load` puts a whole traceback into the message of the one it raises
    steps = list(traceback.walk_tb(error.__traceback__))
    if steps[-1][0].f_code is load:  # it reached the file, but not into get_config
        if isinstance(error, AttributeError):
            return f'{path} has no get_config: give a configuration file, such as configs/cub.py'
        if 'positional argument' in str(error):
            if colon:
                return f'{path} has no variants, such as {variant!r}: give --config={path}'
            return f'{path} wants the name of a variant: give --config={path}:NAME'
    if isinstance(error, SyntaxError):
        where, what = (error.filename or path, error.lineno), error.msg
    else:
        own = [line for frame, line in steps if Path(frame.f_code.co_filename).absolute() == Path(path).absolute()]
        where, what = (path, own[-1] if own else None), f'{type(error).__name__}: {error}'
    line = f' line {where[1]}' if where[1] else ''
    return f'{path} is no usable configuration file: {where[0]}{line}: {what}'


def _missing_flags(error: Exception) -> str | None:
    names = re.findall(r'Flag --([\w.]+) must have a value other than None', str(error))
    # Without a --config file there is no flag for its fields either.
    if isinstance(error, flags.UnrecognizedFlagError) and re.match(r'(no)?config\.', error.flagname):
        names = ['config'] if 'config' in flags.FLAGS and flags.FLAGS['config'].value is None else []
    missing = [f'--{name} is missing: {flags.FLAGS[name].help.rstrip(".")}' for name in names]
    return '; '.join([*missing, 'see --help']) if missing else None


def _wrong_field(argv: list[str]) -> str | None:
    """The first override that the configuration has no field for, as the user typed it."""
    files = _config_files(argv)
    if not files:
        return None
    # config_flags does not say which override it could not place, so that each is looked up again.
    config = _load_config(argv)
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


def _use_compilation_cache() -> None:
    """Keeps compiled programs between starts, unless the user's environment says where or not at all."""
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    given = Path(os.environ.get('XDG_CACHE_HOME', ''))
    try:
        # The XDG specification has a relative path ignored.
        cache = (given if given.is_absolute() else Path('~/.cache').expanduser()) / 'ssanet_jax' / 'compiled'
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a container's user may have no home, or none that can be written to
        return
    jax.config.update('jax_compilation_cache_dir', str(cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def check_out(out: Path) -> None:
    """Makes the folder of the file that `--out` names.

    Raises:
      UserError: no file can be made there.
    """
    if out.is_dir():
        raise UserError(f'--out={out} is a folder: give the name of a file')
    with _named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass


def write_out(out: Path, text: str) -> None:
    """`write_whole` for the file that `--out` names; what is no text, as of folders in other codes, becomes '?'.

    Raises:
      UserError: it cannot be written; then an earlier one is as it was.
    """
    with _named(out):
        write_whole(out, text, errors='replace')


@contextlib.contextmanager
def _named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): make room, or give another --out') from error
