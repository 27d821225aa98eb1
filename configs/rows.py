"""One row of the paper's tables as a configuration: SSANet with some of its parts removed or replaced.

    python -m ssanet_jax.main --config=configs/rows.py:demo:ablation/op --workdir=runs/op

The text behind the first colon is BASE/ROW. This example takes `configs/demo.py:ablation` and removes everything that
the row `op` of Table 3 does not have. `ssanet_jax/experiments/tables.py` defines the rows, and
`python -m ssanet_jax.ablate` trains whole tables of them.
"""

import importlib
import inspect

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.tables import row_config


def get_config(choice: str) -> ConfigDict:
    base, slash, row = choice.rpartition('/')
    if not slash:
        raise UserError(f'configs/rows.py:{choice} names no row: give BASE/ROW, such as demo:ablation/op')
    name, _, variant = base.partition(':')
    try:
        module = importlib.import_module(f'ssanet_jax.configs.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'ssanet_jax.configs.{name}':
            raise
        raise UserError(f'there is no configs/{name}.py: give BASE/ROW, such as demo:ablation/op') from None
    if variant and not inspect.signature(module.get_config).parameters:
        raise UserError(f'configs/{name}.py has no variants, such as {variant!r}: give {name}/{row}')
    return row_config(module.get_config(*[variant] if variant else []), row)
