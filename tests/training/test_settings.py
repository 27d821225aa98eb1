"""Settings of a run that are refused before it starts."""

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.training.settings import check_settings


@pytest.mark.parametrize(
    ('field', 'value'),
    [('seed', -1), ('seed', 2**32), ('eval_epochs', -1), ('checkpoint_steps', -3), ('early_stopping_patience', -1)],
)
def test_settings_of_the_run_that_make_no_sense(tiny_config, field, value):
    tiny_config[field] = value
    with pytest.raises(UserError, match=f'config.{field}={value}'):
        check_settings(tiny_config)
