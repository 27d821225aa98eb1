"""The kinds of values in a run's `config.json`, which people edit and disks damage."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_NAME = re.compile(r'[A-Za-z]\w*', re.ASCII)
_MOST = 10**6  # no count or side in pixels is larger; one that is would only fill the memory

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and '\0' not in value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= _MOST


def _is_num_workers(value: Any) -> bool:
    return isinstance(value, int) and -1 <= value <= _MOST


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_flag(value: Any) -> bool:
    return value in (0, 1) and isinstance(value, int)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _are_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_folder_name(value: Any) -> bool:
    return _is_text(value) and value not in ('', '.', '..') and '/' not in value


def _each(check: Check, names: str) -> dict[str, Check]:
    return dict.fromkeys(names.split(), check)


_SECTIONS: dict[str, dict[str, Check]] = {
    'data': _each(_is_text, 'name dir csv prepared_dir interpolation level')
    | _each(_is_count, 'image_size resize batch_size eval_batch_size prefetch')
    | _each(_is_num_workers, 'num_workers')
    | _each(_is_count, 'train_count test_count size distractors bit_depth')
    | _each(_is_seed, 'split_seed seed')
    | _each(_is_flag, 'shrink flip')
    | _each(_is_number, 'scale_min color_jitter random_erasing validation')
    | _each(_are_numbers, 'mean std'),
    'model': _each(_is_text, 'backbone pretrained geometry proposal sharing fusion part_head')
    | _each(_is_text, 'features solver orientation dtype')
    | _each(_is_count, 'num_parts num_proposals num_scales output_stride crop_size patch grid')
    | _each(_is_count, 'global_size upright upright_size')
    | _each(_is_number, 'part_size alpha nms_iou')
    | _each(_is_flag, 'standardize class_token remat'),
    'loss': _each(_are_weights, 'weights')
    | _each(_is_number, 'mac_temperature label_smoothing')
    | _each(_is_text, 'mac_reduction'),
    'optimizer': _each(_is_text, 'name') | _each(_is_number, 'momentum weight_decay'),
    'mesh': _each(_is_text, 'shape') | _each(_is_flag, 'shard_heads'),
}
_TOP = (
    _each(_is_seed, 'seed')
    | _each(_is_text, 'async_checkpointing on_nonfinite recipe')
    | _each(_is_number, 'eval_epochs checkpoint_steps')
    | _each(_is_count, 'epochs early_stopping_patience')
)
_STAGE = (
    _each(_is_folder_name, 'name')
    | _each(_are_weights, 'train')
    | _each(_is_number, 'epochs learning_rate warmup_epochs layer_decay cache')
    | _each(_is_text, 'schedule')
    | _each(_are_numbers, 'milestones')
    | _each(_is_count, 'trainable_backbone_layers')
    | _each(_is_flag, 'fit freeze_batch_norm')
)


def find_damage(config: Mapping[str, Any]) -> str:
    """Finds a field of a recorded configuration that has a value which it cannot have.

    Args:
      config: the tree in `config.json`, with today's names of fields. Fields that are not known are not checked, and
        none is required but the backbone and the names of the stages.

    Returns:
      Such as 'config.data.dir=[]'; '' if there is none.
    """
    sections: list[tuple[str, Any, Mapping[str, Check]]] = [('config', config, _TOP)]
    sections += [(f'config.{name}', config[name], _SECTIONS.get(name, {})) for name in _SECTIONS if name in config]
    sections += [(f'config.stages[{i}]', stage, _STAGE) for i, stage in enumerate(config.get('stages', ()))]
    for path, section, checks in sections:
        if not isinstance(section, Mapping):
            return _shown(path, section)
        for name, value in section.items():
            if not _NAME.fullmatch(name) or not checks.get(name, lambda value: True)(value):
                return _shown(f'{path}.{name}', value)
    if 'backbone' not in config['model']:
        return 'config.model has no backbone'
    if not config['stages'] or not all('name' in stage for stage in config['stages']):
        return 'config.stages lacks names'
    return ''


def _shown(path: str, value: Any) -> str:
    text = repr(value)
    return f'{path}={text if len(text) <= 60 else text[:57] + "..."}'
