"""A pickle machine that has nothing to run with.

A pickle is a program: whoever lets Python follow one runs what a stranger wrote. Here `pickletools`
only takes it apart, and the machine below follows the few instructions that a file of tensors
consists of. It calls no function but those it is given, and it sets no attribute.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

_PUSHES = frozenset(
    'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING '
    'UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8'.split()
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_MARK = object()


class Refused(Exception):
    """The pickle asks for something that is neither a tensor nor a plain container."""


class Function:
    """A function that a pickle may call. Wrapped, so that nothing else that is callable can be called."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


def follow(file: BinaryIO, known: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """What the pickle at the file's position makes; the file is left where the pickle ends.

    Args:
      file: whose `read` and `readline` never claim more memory than there are bytes.
      known: (module, name) -> what a pickle gets for it: a `Function`, or a value.
      persistent: what becomes of a persistent id.

    Raises:
      Refused: the pickle asks for another name, or for an instruction that state dicts do without.
      Exception: the pickle is damaged; which one tells nothing.
    """
    stack, memo = [], {}
    for code, argument, _ in pickletools.genops(file):
        match code.name:
            case 'PROTO' | 'FRAME':
                pass
            case name if name in _PUSHES:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case 'MARK':
                stack.append(_MARK)
            case 'EMPTY_LIST':
                stack.append([])
            case 'EMPTY_DICT':
                stack.append({})
            case 'LIST':
                stack.append(_since_mark(stack))
            case 'TUPLE':
                stack.append(tuple(_since_mark(stack)))
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                count = int(code.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case 'DICT':
                items = _since_mark(stack)
                stack.append({})
                _set_items(stack[-1], items)
            case 'APPEND':
                item = stack.pop()
                _append(stack[-1], [item])
            case 'APPENDS':
                items = _since_mark(stack)
                _append(stack[-1], items)
            case 'SETITEM':
                items = [stack.pop(-2), stack.pop()]
                _set_items(stack[-1], items)
            case 'SETITEMS':
                items = _since_mark(stack)
                _set_items(stack[-1], items)
            case 'PUT' | 'BINPUT' | 'LONG_BINPUT':
                memo[argument] = stack[-1]
            case 'MEMOIZE':
                memo[len(memo)] = stack[-1]
            case 'GET' | 'BINGET' | 'LONG_BINGET':
                stack.append(memo[argument])
            case 'POP':
                stack.pop()
            case 'GLOBAL':
                stack.append(_look_up(known, *argument.split(' ', 1)))
            case 'STACK_GLOBAL':
                module, name = stack.pop(-2), stack.pop()
                stack.append(_look_up(known, module, name))
            case 'REDUCE':
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, Function):
                    raise ValueError('a call of something that is no function')
                stack.append(function.call(*arguments))
            case 'BUILD':  # State of the object below; torch hangs `_metadata` on a dict, which nobody needs here.
                stack.pop()
            case 'BINPERSID':
                stack.append(persistent(stack.pop()))
            case 'STOP':
                return stack.pop()
            case name:
                raise Refused(f'the instruction {name} {"" if argument is None else argument}'.strip())
    raise EOFError('the pickle has no end')


def _look_up(known, module, name):
    if (module, name) not in known:
        raise Refused(f'{module}.{name}')
    return known[module, name]


def _since_mark(stack):
    start = len(stack) - 1
    while stack[start] is not _MARK:
        start -= 1
        if start < 0:
            raise ValueError('a mark is missing')
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _append(target, items):
    if not isinstance(target, list):
        raise ValueError('an item for something that is no list')
    target += items


def _set_items(target, items):
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError('an entry for something that is no dict')
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, str | int | float | None):  # Nested tuples could take for ever to hash.
            raise ValueError('a key that is neither a text nor a number')
        target[key] = value
