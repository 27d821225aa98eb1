"""One row of the paper's tables as a configuration of its own: SSANet with something left out or put in its place.

    python -m ssanet_jax.main --config=configs/rows.py:demo:ablation/op --workdir=runs/op

reads BASE/ROW: what `configs/demo.py:ablation` trains, less what the row `op` of Table 3 does not have. The
rows are those of `ssanet_jax/experiments/tables.py`; `python -m ssanet_jax.ablate` trains whole tables of them.
"""

import importlib
import inspect

from ssanet_jax.errors import UserError
from ssanet_jax.experiments.tables import row_config


def get_config(choice):
    base, slash, row = choice.rpartition('/')
    if not slash:
        raise UserError(f'configs/rows.py:{choice} names no row: give BASE/ROW, such as demo:ablation/op')
    name, _, variant = base.partition(':')
    try:
        module = importlib.import_module(f'configs.{name}')
    except ModuleNotFoundError as error:
        if error.name != f'configs.{name}':
            raise
        raise UserError(f'there is no configs/{name}.py: give BASE/ROW, such as demo:ablation/op') from None
    if variant and not inspect.signature(module.get_config).parameters:
        raise UserError(f'configs/{name}.py has no variants, such as {variant!r}: give {name}/{row}')
    return row_config(module.get_config(*[variant] if variant else []), row)
