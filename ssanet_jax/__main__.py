"""The command `ssanet`, which is also `python -m ssanet_jax`: one name for the commands of the package.

ssanet train --config=configs/cub.py --workdir=runs/cub --config.data.dir=CUB_200_2011
"""

import runpy
import sys
from typing import NamedTuple

from ssanet_jax import startup, terminal


class Command(NamedTuple):
    """A subcommand. It runs a module as `python -m` does, so that it has the same flags, help and messages."""

    module: str
    summary: str
    flags: tuple[str, ...] = ()  # given in front of the user's


COMMANDS = {
    'train': Command('ssanet_jax.main', 'Train a configuration, or resume a run.', ('--mode=train',)),
    'evaluate': Command('ssanet_jax.main', 'Evaluate a trained run on its test set.', ('--mode=evaluate',)),
    'download': Command('ssanet_jax.download', 'Download a published data set, such as cub.'),
    'predict': Command('ssanet_jax.predict', 'Predict the class of images, and draw their parts.'),
    'index': Command('ssanet_jax.index', "Compute the features of a run's training images, for explanations."),
    'pack': Command('ssanet_jax.pack', 'Pack a finished run into a small work directory.'),
    'export': Command('ssanet_jax.export', 'Export a run to one file that runs without JAX.'),
    'push': Command('ssanet_jax.push', 'Upload a finished run to the Hugging Face hub.'),
    'serve': Command('ssanet_jax.serving', 'Serve an exported network by HTTP.'),
    'report': Command('ssanet_jax.report', 'Write one page about a run: results, curves, parts, mistakes.'),
    'measure': Command('ssanet_jax.measure', 'Measure robustness, and parts against key points.'),
    'ablate': Command('ssanet_jax.ablate', "Train the rows of one of the paper's tables with several seeds."),
    'compare': Command('ssanet_jax.compare', 'Compare finished runs image by image, with confidence interval.'),
    'doctor': Command('ssanet_jax.doctor', 'Check a data set before training on it.'),
    'preflight': Command('ssanet_jax.preflight', 'Check whether a configuration fits devices that are not here.'),
}


def main() -> None:
    """Runs the subcommand that the command line names."""
    startup.prepare_command()
    name, *arguments = sys.argv[1:] or ['']
    if name in COMMANDS:
        command = COMMANDS[name]
        sys.argv[1:] = [*command.flags, *arguments]
        runpy.run_module(command.module, run_name='__main__', alter_sys=True)
        return
    with terminal.standard_streams():
        if name in ('-h', '-help', '--help', 'help'):
            print(_usage())
        else:
            problem = f'there is no command {name!r}' if name else 'no command given'
            print(f'error: {problem}: choose from {", ".join(COMMANDS)}, or see ssanet --help', file=sys.stderr)
            sys.exit(2)


def _usage() -> str:
    commands = [f'  {name:10} {command.summary}' for name, command in COMMANDS.items()]
    lines = ['usage: ssanet COMMAND [FLAGS]', '', *commands, '', 'ssanet COMMAND --help lists the flags of a command.']
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
