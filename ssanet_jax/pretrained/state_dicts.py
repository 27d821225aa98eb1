"""Where a training checkpoint keeps the weights, among the optimizer's state, settings and scores."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax.errors import UserError

# Keys of the weights in the checkpoints of common training programs. If there are several, the first one counts:
# averaged weights (EMA) are used only if there are no others.
_KEYS = (
    'state_dict',
    'model',
    'model_state_dict',
    'model_state',
    'net',
    'network',
    'weights',
    'params',
    'module',
    'state_dict_ema',
    'model_ema',
    'ema_state_dict',
    'ema',
)
_MAX_DEPTH = 4  # of nested dictionaries
_SHOWN = 4  # keys listed in a message
_MAX_TENSORS = 5000  # ten times as many as a large backbone has; each name is compared with those of all layers
_MAX_LEVELS = 20  # of the name of a tensor
_MAX_NAME = 500  # characters


class StateDict(NamedTuple):
    """The named tensors of a file."""

    tensors: Mapping[str, Any]
    """Arrays by name, in the order of the file."""
    key: str = ''
    """Where they are in the file, such as 'state_dict' or 'model.net'; '' for the whole file."""
    unused: tuple[str, ...] = ()
    """Keys of other named tensors in the file."""


def find_state_dict(content: Any, tensor_type: type, path: Path) -> StateDict:
    """Finds the weights in the content of a file.

    Args:
      content: a dictionary of tensors, or of dictionaries and other data.
      tensor_type: the type of a tensor.
      path: the file, for messages.

    Raises:
      UserError: there are no named tensors, or it is unclear which of several sets are the weights.
    """
    found = {
        keys: tensors
        for keys, group in _dictionaries(content)
        if (tensors := {k: v for k, v in group.items() if isinstance(v, tensor_type) and isinstance(k, str)})
    }
    if not found:
        raise UserError(
            f'{path} does not contain named tensors; save a state dict with torch.save(model.state_dict(), path)'
        )
    known = [keys for keys in found if keys and keys[-1] in _KEYS]
    if known:
        chosen = min(known, key=lambda keys: (_KEYS.index(keys[0]) if keys[0] in _KEYS else len(_KEYS), len(keys)))
    elif () in found:
        chosen = ()
    elif len(found) == 1:
        (chosen,) = found
    else:
        raise UserError(
            f'{path} holds several sets of tensors ({_listed(found)}) and it is unclear which are the weights; save '
            'the state dict of the network alone with torch.save(model.state_dict(), path)'
        )
    check_names(found[chosen], path)
    unused = tuple('.'.join(keys) or 'tensors outside of it' for keys in found if keys != chosen)
    return StateDict(found[chosen], '.'.join(chosen), unused)


def check_names(names: Collection[str], path: Path) -> None:
    """Checks that a file has no more tensors, and no longer names, than networks have.

    Raises:
      UserError: it has.
    """
    if len(names) > _MAX_TENSORS or any(name.count('.') > _MAX_LEVELS or len(name) > _MAX_NAME for name in names):
        raise UserError(
            f'{path} is refused: it has {len(names)} tensors, and at most {_MAX_TENSORS} with names of at most '
            f'{_MAX_LEVELS} levels are read; save the state dict of the network alone'
        )


def _dictionaries(content: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The content and the dictionaries nested in it, each once, with the keys that lead to it."""
    queue, visited = [((), content)], set()
    for keys, group in queue:  # grows while it is read, by one level after another
        # A file can refer to one dictionary any number of times, even from within itself.
        if not isinstance(group, dict) or id(group) in visited:
            continue
        visited.add(id(group))
        yield keys, group
        if len(keys) < _MAX_DEPTH:
            queue += [((*keys, key), value) for key, value in group.items() if isinstance(key, str)]


def _listed(found: Mapping[tuple[str, ...], Any]) -> str:
    names = ['.'.join(keys) for keys in found]
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
