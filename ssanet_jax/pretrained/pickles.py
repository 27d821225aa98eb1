"""A restricted interpreter of pickles.

A pickle is a program, and unpickling an untrusted file can run arbitrary code. Here, `pickletools` parses the pickle,
and the interpreter below executes only the few instructions that files of tensors consist of. It calls only the
functions that it is given, and sets no attributes.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol, cast

_PUSHES = frozenset(
    'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING '
    'UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8'.split()
)
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_MARK = object()


class ReadableFile(Protocol):
    """The part of a file object that `pickletools` uses."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


class UnsafePickle(Exception):
    """The pickle needs something other than tensors and plain containers."""


class AllowedFunction:
    """Marks a function that a pickle may call; other callables cannot be called."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


def interpret(file: ReadableFile, known: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Interprets the pickle at the file's position, and leaves the file at the end of the pickle.

    Args:
      file: an open file, whose `read` and `readline` must not allocate more memory than there are bytes.
      known: {(module, name): value}, the globals that a pickle may use, functions as `AllowedFunction`.
      persistent: maps persistent ids to objects.

    Returns:
      The unpickled object.

    Raises:
      UnsafePickle: the pickle uses another global, or an instruction that state dicts do not need.
      Exception: the pickle is damaged; exceptions of any type may occur.
    """
    stack, memo = [], {}
    for code, argument, _ in pickletools.genops(cast(IO[bytes], file)):
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
                stack.append(_look_up(known, *str(argument).split(' ', 1)))
            case 'STACK_GLOBAL':
                module, name = stack.pop(-2), stack.pop()
                stack.append(_look_up(known, module, name))
            case 'REDUCE' | 'NEWOBJ':
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, AllowedFunction):
                    raise ValueError('a call of something that is not a function')
                stack.append(function.call(*arguments))
            case 'BUILD':  # sets attributes, such as `_metadata` of a state dict, which are not needed
                stack.pop()
            case 'BINPERSID':
                stack.append(persistent(stack.pop()))
            case 'STOP':
                return stack.pop()
            case name:
                raise UnsafePickle(f'the instruction {name} {"" if argument is None else argument}'.strip())
    raise EOFError('the pickle has no end')


def _look_up(known: Mapping[tuple[str, str], Any], module: str, name: str) -> Any:
    if (module, name) not in known:
        raise UnsafePickle(f'{module}.{name}')
    return known[module, name]


def _since_mark(stack: list[Any]) -> list[Any]:
    """Pops everything above the topmost mark, and the mark."""
    start = len(stack) - 1
    while stack[start] is not _MARK:
        start -= 1
        if start < 0:
            raise ValueError('a mark is missing')
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _append(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise ValueError('an item appended to something that is not a list')
    target += items


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError('an entry set in something that is not a dict')
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, str | int | float | None):  # nested tuples could take forever to hash
            raise ValueError('a key that is neither a string nor a number')
        target[key] = value
