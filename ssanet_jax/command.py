"""What all commands share: flags, one-line errors with exit code 2, and the compilation cache."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags

from ssanet_jax.errors import UserError

CACHE = Path('~/.cache/ssanet_jax').expanduser()


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
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        # Most likely one of the others is gone. Waiting for it at the exit would only take longer.
        print(
            f'error: the work with the other processes broke off ({" ".join(str(error).split())[:200]}): start all of '
            'them again, training goes on from the last checkpoint',
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
    except KeyboardInterrupt:
        print('interrupted: give the same command again; training goes on from its last checkpoint', file=sys.stderr)
        sys.exit(130)


def _parse(argv: list[str]) -> list[str]:
    _check_config_file(argv)
    try:
        return flags.FLAGS(argv)[1:]
    except flags.Error as error:
        cause = error.__cause__ or error
        raise UserError(f'{cause}; see --help') from error
    except (AttributeError, KeyError, IndexError) as error:
        # config_flags reports a mistyped field as it meets it: name the flag that held it.
        wrong = _mistyped(str(error.args[0]), argv)
        raise UserError(
            f'the configuration has no field {wrong}: check the spelling against the --config file'
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(f'a --config override has a value of the wrong kind: {error}') from error


def _check_config_file(argv: list[str]) -> None:
    # config_flags would not complain before the first field is read, and then with a traceback.
    for argument, following in zip(argv, [*argv[1:], '']):
        name, given, value = argument.partition('=')
        if name in ('-config', '--config'):
            path = (value if given else following).partition(':')[0]  # the rest is an argument of get_config
            if not Path(path).is_file():
                raise UserError(f'there is no configuration file {path!r}: check --config')


def _mistyped(message: str, argv: list[str]) -> str:
    names = re.findall(r"['\"]([\w.\[\]]+)['\"]", message)
    for argument in argv:
        name = argument.partition('=')[0].lstrip('-')
        if name.startswith('config.') and (not names or names[0] in name):
            return name
    return names[0] if names else message


def _use_compilation_cache() -> None:
    """Keeps compiled programs between starts, unless the user's environment says where or not at all."""
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_dir', str(CACHE / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
