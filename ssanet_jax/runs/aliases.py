"""Old names of configuration fields, which command lines, config files and old work directories may still use.

Also the values of fields that old work directories lack.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError


class Alias(NamedTuple):
    """The new name of a field, and the conversion of its value."""

    name: str
    convert: Callable[[Any, Mapping[str, Any]], Any] = lambda value, config: value  # (old value, configuration) -> new
    boolean: bool = False  # the old field's flag may be given without a value

    def new_value(self, path: str, value: Any, config: Mapping[str, Any]) -> Any:
        """Converts a value of the old field.

        Args:
          path: of the old field, for the error message.
          value: of the old field; text if it comes from a command line.
          config: the whole configuration.

        Raises:
          UserError: the old field does not have such a value.
        """
        try:
            return self.convert(value, config)
        except ValueError as error:
            raise UserError(f'{path}={value} {error}') from error


def _output_stride(dilate: Any, config: Mapping[str, Any]) -> int:
    # 'resnet_tiny' was the only backbone with a stride other than 32 while the field had its old name.
    stride = 8 if config['model']['backbone'] == 'resnet_tiny' else 32
    return stride // 2 if _as_bool(dilate) else 0


def _as_bool(value: Any) -> bool:
    """A flag's value, which is text where it comes from a command line."""
    words = {'true': True, 't': True, '1': True, 'yes': True, 'false': False, 'f': False, '0': False, 'no': False}
    if str(value).lower() not in words:
        raise ValueError('must be true or false')
    return words[str(value).lower()]


def _freeze_batch_norm(statistics: Any, config: Mapping[str, Any]) -> bool:
    if statistics not in ('batch', 'running'):
        raise ValueError('must be batch or running')
    return statistics == 'running'


# {section: {old name: alias}}.
FIELDS: dict[str, dict[str, Alias]] = {
    'data': {
        'erase': Alias('random_erasing'),
        'jitter': Alias('color_jitter'),
        'threads': Alias('num_workers'),
    },
    'model': {
        'dilate': Alias('output_stride', _output_stride, boolean=True),
        'parts': Alias('num_parts'),
        'proposals': Alias('num_proposals'),
        'scales': Alias('num_scales'),
    },
    'mesh': {'spread_heads': Alias('shard_heads')},
}
# {old name: alias}, in each stage.
STAGE_FIELDS: dict[str, Alias] = {
    'rate': Alias('learning_rate'),
    'statistics': Alias('freeze_batch_norm', _freeze_batch_norm),
}
# {section: {name: value}}: the values of fields that version 0.1.0 did not have, unless the field is off or empty.
OLD_VALUES: dict[str, dict[str, Any]] = {
    'model': {'geometry': 'legacy', 'proposal': 'ranking', 'part_size': 0.36},
}


def upgrade_config(config: dict[str, Any]) -> dict[str, Any]:
    """Renames old fields of the configuration tree in a run's `config.json`, and adds `OLD_VALUES`.

    Raises:
      UserError: a field is given under its old and its new name.
    """
    upgraded = dict(config)
    for section, aliases in FIELDS.items():
        if section in config:
            upgraded[section] = upgrade_fields(config[section], aliases, config, f'config.{section}')
    for section, values in OLD_VALUES.items():
        if section in config:
            upgraded[section] = values | upgraded[section]
    if 'stages' in config:
        upgraded['stages'] = type(config['stages'])(
            upgrade_fields(stage, STAGE_FIELDS, config, f'config.stages[{index}]')
            for index, stage in enumerate(config['stages'])
        )
    return upgraded


def upgrade_fields(
    section: Mapping[str, Any], aliases: Mapping[str, Alias], config: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Renames old fields of one section of a configuration, and keeps their order.

    Args:
      section: the fields.
      aliases: {old name: alias}.
      config: the whole configuration, for conversions.
      path: the section's name in the error message.

    Raises:
      UserError: a field is given under its old and its new name.
    """
    upgraded = {}
    for name, value in section.items():
        if alias := aliases.get(name):
            if alias.name in section:
                raise UserError(f'{path} has {name} and {alias.name}, the old and the new name of one field: keep one')
            name, value = alias.name, alias.new_value(f'{path}.{name}', value, config)
        upgraded[name] = value
    return upgraded


def rename_fields(config: ConfigDict, overrides: Collection[str]) -> None:
    """Renames, in place, fields that a configuration file has set under old names.

    Args:
      config: the file's configuration, with the overrides of the command line.
      overrides: paths of the overrides, such as 'data.color_jitter', which take precedence over the file.

    Raises:
      UserError: an old field has a value that it never could have.
    """
    for section, aliases in FIELDS.items():
        overridden = _overridden(overrides, section)
        _rename(config.get(section, ConfigDict()), aliases, config, overridden, f'config.{section}')
    stages = config.get('stages', ())
    for index, stage in enumerate(stages):
        paths = f'stages[{index}]', f'stages[{index - len(stages)}]'
        _rename(stage, STAGE_FIELDS, config, _overridden(overrides, *paths), f'config.{paths[0]}')


def _overridden(overrides: Collection[str], *paths: str) -> set[str]:
    """The fields of one section, which has several paths if it is a stage, that the command line sets."""
    return {field for section, _, field in (override.rpartition('.') for override in overrides) if section in paths}


def _rename(
    section: ConfigDict, aliases: Mapping[str, Alias], config: ConfigDict, overridden: Collection[str], path: str
) -> None:
    with section.unlocked():
        for old in aliases.keys() & section.keys():
            alias = aliases[old]
            if alias.name not in overridden:
                section[alias.name] = alias.new_value(f'{path}.{old}', section[old], config)
            del section[old]


_OVERRIDE = re.compile(r'(--?(?:no)?config\.)(\w+)(\[-?\d+\])?\.(\w+)(=.*)?', re.DOTALL)


def upgrade_arguments(argv: Sequence[str], load: Callable[[], Mapping[str, Any]]) -> list[str]:
    """Renames old fields in the `--config.SECTION.FIELD=VALUE` overrides of a command line.

    Args:
      argv: the command line.
      load: reads the configuration file, for conversions that depend on other fields.

    Raises:
      UserError: an old field has no value, or one that it never could have.
    """
    upgraded = []
    arguments = iter(argv)
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        alias = _alias(match) if match else None
        if not match or not alias:
            upgraded.append(argument)
            continue
        start, section, index, name, value = match.groups()
        path = f'{section}{index or ""}'
        if alias.convert is not Alias._field_defaults['convert']:
            if value:
                old = value[1:]
            elif alias.boolean:
                old = str('no' not in start)
            else:
                old = next(arguments, None)
                if old is None:
                    raise UserError(f'{argument} has no value: see --help')
            new = alias.new_value(f'config.{path}.{name}', old, _with_backbone(load(), argv))
            start, value = start.replace('noconfig', 'config'), f'={new}'
        upgraded.append(f'{start}{path}.{alias.name}{value or ""}')
    return upgraded


def _alias(override: re.Match[str]) -> Alias | None:
    _, section, index, name, _ = override.groups()
    return (STAGE_FIELDS if section == 'stages' and index else FIELDS.get(section, {})).get(name)


def _with_backbone(config: Mapping[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """The configuration with the backbone that the command line sets, if it sets one."""
    model = dict(config.get('model', {}))
    for argument, following in zip(argv, [*argv[1:], '']):
        name, equals, value = argument.partition('=')
        if name in ('-config.model.backbone', '--config.model.backbone'):
            model['backbone'] = value if equals else following
    return {**config, 'model': model}
