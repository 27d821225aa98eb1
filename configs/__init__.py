"""Configurations, one file per data set; `common` has every field with its default.

The folder is the package `ssanet_jax.configs`, under which configuration files anywhere import it. In a checkout,
`from configs import common` gives the same modules.
"""

import sys

if __name__ != 'ssanet_jax.configs':
    import ssanet_jax.configs

    sys.modules[__name__] = ssanet_jax.configs
