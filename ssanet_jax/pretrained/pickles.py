"""A restricted interpreter of pickles.

A pickle is a program, and unpickling an untrusted file can run arbitrary code. Here, `pickletools` parses the pickle,
and the interpreter below executes only the few instructions that files of tensors consist of. It calls only the
functions that it is given, and sets no attributes.

A few bytes of a pickle can ask for any amount of memory or time: they may copy a long list again and again, or name an
object that holds itself very many times. The interpreter therefore limits the number of instructions and of items that
calls are given, and never hashes, compares or prints an object that is not a short string or a number.
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
# Limits, ten times above what training checkpoints of large networks have.
_MAX_WORK = 300_000  # instructions, and items in the arguments of calls
_MAX_STRING = 1 << 24  # bytes
_MAX_NAME = 500  # characters of a key
_MAX_INTEGER = 1 << 80  # torch's magic number has 77 bits
_MAX_KEY = 1 << 60  # no two integers below it have the same hash


class ReadableFile(Protocol):
    """The part of a file object that `pickletools` uses."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


class UnsafePickle(Exception):
    """The pickle needs something other than tensors and plain containers."""


class ExceedsLimit(Exception):
    """The file asks for more memory or time than a file of weights needs."""


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
      ExceedsLimit: the pickle asks for too much memory or time.
      Exception: the pickle is damaged; exceptions of any type may occur.
    """
    stack, memo, work = [], {}, 0
    for code, argument, _ in pickletools.genops(cast(IO[bytes], _LimitedReads(file))):
        work += 1
        if work > _MAX_WORK:
            raise ExceedsLimit(f'a pickle of more than {_MAX_WORK} instructions')
        match code.name:
            case 'PROTO' | 'FRAME':
                pass
            case name if name in _PUSHES:
                if isinstance(argument, int) and not -_MAX_INTEGER < argument < _MAX_INTEGER:
                    raise ExceedsLimit('an integer of more than 80 bits')
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
                if not isinstance(argument, int) or not 0 <= argument < _MAX_KEY:
                    raise ValueError('an object remembered under a wrong number')
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
                work += sum(len(value) for value in arguments if isinstance(value, list | tuple | dict))
                if work > _MAX_WORK:
                    raise ExceedsLimit(f'calls with more than {_MAX_WORK} items')
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


class _LimitedReads:
    """A file that refuses to read strings of an enormous length."""

    def __init__(self, file: ReadableFile):
        self._file = file
        self.readline = file.readline
        self.tell = getattr(file, 'tell', None)

    def read(self, count: int, /) -> bytes:
        if count > _MAX_STRING:
            raise ExceedsLimit(f'a string of {count} bytes')
        return self._file.read(count)


def _look_up(known: Mapping[tuple[str, str], Any], module: Any, name: Any) -> Any:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError('a global whose name is not a string')
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
        check_key(key)
        target[key] = value


def check_key(key: Any) -> None:
    """Raises ValueError or ExceedsLimit for a key that a dictionary or a message should not have to deal with.

    Nested tuples could take forever to hash, and so could many integers with the same hash.
    """
    if not isinstance(key, str | int | float | None):
        raise ValueError('a key that is neither a string nor a number')
    if isinstance(key, str) and len(key) > _MAX_NAME:
        raise ExceedsLimit(f'a name of {len(key)} characters')
    if isinstance(key, int) and not -_MAX_KEY < key < _MAX_KEY:
        raise ExceedsLimit('a key that is an enormous number')
