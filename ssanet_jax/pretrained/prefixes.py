"""The prefix that a training program puts before the names of the backbone's tensors, such as 'module.backbone.'.

DataParallel prepends 'module.', `torch.compile` '_orig_mod.', and models that contain a backbone the name of that
attribute. The prefix is found by content: it is the one under which most of the backbone's tensors are found.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.names import Rule, expand, match_rule

# Modules on top of a backbone, which are not needed.
_HEADS = re.compile(r'(fc|_fc|head|heads|classifier|aux_classifier|last_linear|projector|projection_head)\..*')
_COUNTER = re.compile(r'(.*\.)?num_batches_tracked')
_SHOWN = 4  # names listed in a message


class BackboneTensors(NamedTuple):
    """The tensors of a backbone in a checkpoint."""

    tensors: dict[str, np.ndarray]
    """By name, without the prefix."""
    prefix: str
    dropped: tuple[str, ...]
    """Full names of the tensors that are not needed, without BatchNorm's counters."""


def select_backbone(
    tensors: Mapping[str, np.ndarray], rules: tuple[Rule, ...], expected: Iterable[str], source: str
) -> BackboneTensors:
    """Selects the backbone's tensors and removes the prefix of their names.

    Tensors of other modules are dropped. Those of the backbone's module that have no place in the backbone are kept,
    so that `map_names` reports them: they belong to another architecture.

    Args:
      tensors: {torch name: array}.
      rules: the table of the family, as for `map_names`.
      expected: the dotted NNX paths of the backbone.
      source: the origin of the checkpoint, for the error message.

    Raises:
      UserError: the tensors of several backbones are there, under different prefixes.
    """
    prefix = _find_prefix(tensors, rules, frozenset(expected), source)
    kept, dropped = {}, []
    for name, array in tensors.items():
        inner = name.removeprefix(prefix)
        rule = match_rule(inner, rules) if name.startswith(prefix) else None
        unneeded = rule[1] is None if rule else not name.startswith(prefix) or _HEADS.fullmatch(inner)
        if not unneeded:
            kept[inner] = array
        elif not _COUNTER.fullmatch(name):
            dropped.append(name)
    return BackboneTensors(kept, prefix, tuple(dropped))


def list_names(names: Iterable[str]) -> str:
    """The first few names, and the number of others."""
    names = list(names)
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more


def _find_prefix(
    tensors: Mapping[str, np.ndarray], rules: tuple[Rule, ...], expected: frozenset[str], source: str
) -> str:
    found: defaultdict[str, set[str]] = defaultdict(set)  # prefix -> paths of the backbone found under it
    for name in tensors:
        parts = name.split('.')
        for start in range(len(parts)):
            match, template, _ = match_rule('.'.join(parts[start:]), rules) or (None, None, None)
            if match and template and (paths := expected.intersection(expand(match, template))):
                found[''.join(f'{part}.' for part in parts[:start])] |= paths
    complete = [prefix for prefix, paths in found.items() if len(paths) == len(expected)]
    if '' in complete:
        return ''
    if len(complete) > 1:
        raise UserError(
            f'{source} holds {len(complete)} networks that fit the backbone, under the names '
            f'{list_names(f"{prefix}*" for prefix in complete)}; save the tensors of one of them in a file of its own'
        )
    return max(found, key=lambda prefix: len(found[prefix]), default='')
