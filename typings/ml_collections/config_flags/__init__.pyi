"""Types of the functions of `ml_collections.config_flags` that the package uses."""

from typing import Any

from absl.flags import Flag, FlagHolder
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags as config_flags

def DEFINE_config_file(
    name: str, default: str | None = ..., help_string: str = ..., lock_config: bool = ..., **kwargs: Any
) -> FlagHolder[ConfigDict]: ...
def get_config_filename(config_flag: Flag) -> str: ...
def get_override_values(config_flag: Flag) -> dict[str, Any]: ...
