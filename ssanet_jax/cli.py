"""The frame of every command: flags, one-line errors with exit code 2, and the compilation cache."""

import contextlib
import errno
import logging
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from ml_collections.config_flags import config_flags

from ssanet_jax import config_files, startup, terminal
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.filesystem.caches import is_writable
from ssanet_jax.printable import one_line
from ssanet_jax.runs.aliases import upgrade_arguments

# Errors of file operations that have nothing to do with this program, and what to do about them.
_FILE_ERRORS = {
    errno.ENOSPC: ('the disk is full', 'free some space'),
    errno.EDQUOT: ('the disk quota is used up', 'free some space'),
    errno.EFBIG: ('a file is larger than the system permits', 'raise the limit (ulimit -f)'),
    errno.EROFS: ('the file system is read-only', 'mount it for writing, or give another folder,'),
    errno.EACCES: ('no permission', 'allow it'),
    errno.EPERM: ('no permission', 'allow it'),
    errno.EIO: ('the disk failed (input/output error)', 'check the disk'),
    errno.ESTALE: ('the network file system lost a file', 'check the mount'),
    errno.EMFILE: ('too many files are open', 'raise the limit (ulimit -n)'),
}
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}  # as XLA abbreviates bytes


def run(main: Callable[..., None], *, accepts_arguments: bool = False, trains: bool = False) -> None:
    """Parses the flags of the command line, runs `main`, and ends the process.

    A `UserError` or a wrong flag ends it with one line on stderr and exit code 2, Ctrl-C with 130, and SIGTERM with 75
    if the command trains.

    Args:
      main: the command.
      accepts_arguments: call `main` with the list of positional arguments. Otherwise it takes none, and a positional
        argument is an error.
      trains: the command trains, and resumes when it is run again.
    """
    startup.finish_imports()
    # Some libraries set a format of their own when they are imported.
    logging.basicConfig(format='warning: %(message)s', level=logging.WARNING, force=True)
    logging.getLogger('matplotlib').setLevel(logging.ERROR)  # it warns where its cache cannot be kept
    # Orbax leaves the reads of a damaged checkpoint unfinished; an error says that it is damaged.
    warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
    warnings.filterwarnings('ignore', category=UserWarning, module='PIL')  # damaged images are reported by name
    _hide_late_callbacks()
    resumes = '; training resumes from the last complete checkpoint' if trains else ''
    with terminal.standard_streams():
        try:
            _check_working_directory()
            arguments = _parse(sys.argv)
            if arguments and not accepts_arguments:
                raise UserError(f'unexpected argument {arguments[0]!r}: see --help')
            _use_compilation_cache()
            with terminal.interruptible(resumes=trains):
                main(*[arguments] if accepts_arguments else [])
        except UserError as error:
            print(f'error: {one_line(error)}', file=sys.stderr)
            sys.exit(2)
        except BrokenPipeError:
            raise
        except Exception as error:
            if message := _out_of_memory(error):
                _exit(message, 2)
            if _is_jax_error(error) and _process_count() > 1:
                # Most likely another process has ended.
                _exit(
                    f'error: lost contact with the other processes ({" ".join(str(error).split())[:200]}): start all '
                    'of them again; training resumes from the last checkpoint',
                    1,
                )
            if message := _failed_file(error):
                _exit(f'error: {message} and run the same command again{resumes}', 2)
            raise
        except KeyboardInterrupt as error:
            terminated = isinstance(error, terminal.Terminated)
            signal = 'terminated' if terminated else 'interrupted'
            print(f'{signal}: run the same command again{resumes}', file=sys.stderr)
            sys.exit(terminal.TERMINATED if terminated else startup.INTERRUPTED)


def _hide_late_callbacks() -> None:
    """Hides the tracebacks of writes that end after their checkpoint could not be saved: an error says that already."""

    def show(unraisable: Any) -> None:
        if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == 'Event loop is closed'):
            shown_before(unraisable)

    shown_before = sys.unraisablehook
    sys.unraisablehook = show


def config_name() -> str:
    """The name of a run of the --config file: `cub_paper` for configs/cub.py:paper.

    It names a folder, so any character of a variant other than letters, digits, '_', '-' and '.' becomes '_'.
    """
    path, _, variant = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
    return '_'.join(filter(None, (Path(path).stem, re.sub(r'[^\w.-]+', '_', variant))))


def _exit(message: str, code: int) -> NoReturn:
    """Ends the process; immediately if it is one of several, since a normal exit would wait for the others."""
    print(message, file=sys.stderr, flush=True)
    if _process_count() > 1:
        os._exit(code)
    sys.exit(code)


def _out_of_memory(error: BaseException | None) -> str | None:
    """The message to end with, if the error was caused by a device without enough memory."""
    while error is not None:
        message = str(error)
        # RESOURCE_EXHAUSTED has other causes too, such as a message to another process that is too long.
        if (
            _is_jax_error(error)
            and 'RESOURCE_EXHAUSTED' in message
            and re.search('memory|allocat', message, re.IGNORECASE)
        ):
            amount = re.search(r'(?:allocat\w+|Used) (\d+(?:\.\d+)?) ?([KMGT]?)', message)
            requested = f' ({float(amount[1]) * _UNITS[amount[2]] / 2**30:.2f} GiB requested)' if amount else ''
            return (
                f'error: out of device memory{requested}: set a smaller config.data.batch_size '
                '(config.data.eval_batch_size if an evaluation failed), config.model.sharing=image '
                'or config.model.dtype=bfloat16, and check that no other program uses the device'
            )
        error = error.__cause__ or error.__context__
    return None


def _failed_file(error: BaseException | None) -> str | None:
    """What is wrong and what to do, if an operation on a file failed for a reason that the user can remove.

    Checkpoints are written by C++ code, which gives only a message.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        named = re.search(r'["\'](/[^"\']+)["\']', str(error))
        place = error.filename if isinstance(error, OSError) and error.filename else named and named[1]
        for failure, (problem, cure) in _FILE_ERRORS.items():
            if number == failure or os.strerror(failure) in str(error):
                return f'{problem}{f" ({place})" if place else ""}: {cure}'
        error = error.__cause__ or error.__context__
    return None


def _check_working_directory() -> None:
    """Raises `UserError` in a folder that another program has deleted: no relative path means anything there."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f'the working directory cannot be read ({error.strerror}): cd to another folder') from error


def _parse(argv: list[str]) -> list[str]:
    """Sets the flags and returns the positional arguments. `--help` ends the process with exit code 0."""
    app.define_help_flags()
    # config_flags reads sys.argv itself, so `argv` is changed in place.
    argv[:] = config_files.use_packaged_files(argv)
    config_files.check_exists(argv)
    try:
        if config_files.is_given(argv):
            argv[:] = upgrade_arguments(argv, lambda: config_files.load(argv))
        arguments = flags.FLAGS(argv)[1:]
        config_files.check_content()
        return arguments
    except SystemExit as error:
        if _is_help(error):  # absl leaves with 1 after it has printed the help
            sys.exit(0)
        raise  # by the configuration file
    except (UserError, BrokenPipeError):
        raise  # of the configuration file itself, or of the help
    except Exception as error:
        message = config_files.explain(argv, error) or _missing_flags(error) or config_files.unknown_field(argv)
        if message:
            raise UserError(message) from error
        unknown = error.flagname if isinstance(error, flags.UnrecognizedFlagError) else ''
        if fields := config_files.fields_named(argv, unknown):
            raise UserError(
                f'there is no flag --{unknown}: give {" or ".join(fields[:3])} for the field of the configuration'
            ) from error
        if isinstance(error, flags.Error):
            raise UserError(f'{error.__cause__ or error}; see --help') from error
        if isinstance(error, (TypeError, ValueError)):
            raise UserError(f'a --config override has a value of the wrong type: {error}') from error
        raise


def _is_help(error: SystemExit) -> bool:
    """Whether one of absl's help flags ends the process."""
    owners = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(isinstance(owner, (app.HelpFlag, app.HelpfullFlag, app.HelpXMLFlag)) for owner in owners)


def _missing_flags(error: Exception) -> str | None:
    names = re.findall(r'Flag --([\w.]+) must have a value other than None', str(error))
    # Without a --config file, its fields have no flags either.
    if isinstance(error, flags.UnrecognizedFlagError) and re.match(r'(no)?config\.', error.flagname):
        names = ['config'] if 'config' in flags.FLAGS and flags.FLAGS['config'].value is None else []
    missing = [f'--{name} is missing: {flags.FLAGS[name].help.rstrip(".")}' for name in names]
    return '; '.join([*missing, 'see --help']) if missing else None


def _use_compilation_cache() -> None:
    """Keeps compiled programs between starts; JAX_COMPILATION_CACHE_DIR overrides the folder."""
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    given = Path(os.environ.get('XDG_CACHE_HOME', ''))
    try:
        # The XDG specification has a relative path ignored.
        cache = (given if given.is_absolute() else Path('~/.cache').expanduser()) / 'ssanet_jax' / 'compiled'
    except RuntimeError:  # a container's user may have no home
        return
    if not is_writable(cache):
        return
    if jax := _imported_jax():
        jax.config.update('jax_compilation_cache_dir', str(cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    else:  # JAX reads them if it is imported later
        os.environ['JAX_COMPILATION_CACHE_DIR'] = str(cache)
        os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


def _imported_jax() -> Any:
    """JAX, if the command has imported it; one that runs an exported network has not."""
    return sys.modules.get('jax')


def _is_jax_error(error: BaseException) -> bool:
    jax = _imported_jax()
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)


def _process_count() -> int:
    jax = _imported_jax()
    return 1 if jax is None else jax.process_count()


def check_out(out: Path) -> None:
    """Creates the folder of the file that `--out` names.

    Raises:
      UserError: no file can be created there.
    """
    if out.is_dir():
        raise UserError(f'--out={out} is a folder: give the name of a file')
    with _out_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass


def write_out(out: Path, content: str | bytes) -> None:
    """Writes the file that `--out` names, atomically; characters that UTF-8 cannot encode become '?'.

    Raises:
      UserError: it cannot be written; an earlier file is then unchanged.
    """
    with _out_errors(out):
        write_atomically(out, content, errors='replace')


@contextlib.contextmanager
def _out_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): free some space, or give another --out') from error
