"""Damage to files: to bytes, to lines of text and to JSON trees. A seed determines it."""

import copy
import json
import random
from typing import Any

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10**9, 10**15, 2**63 - 1)

# What people and programs write where a number, a name or a path is expected.
_TOKENS = (
    *(
        '',
        '0',
        '-1',
        '1e400',
        'nan',
        'inf',
        '-inf',
        '9' * 30,
        '1.5',
        '0x10',
        '1,5',
        'None',
        'true',
        '\N{DIGIT ONE}\u0661',
    ),
    *('../../etc/passwd', '/etc/passwd', '~', '.', '..', 'a/b', 'C:\\x', '[bold]', '%s', '{0}', '$(touch owned)'),
    *(
        '"',
        "'",
        '\\',
        '\t',
        '\r',
        '\x00',
        '\x0b',
        '\x1c',
        '\x85',
        '\u2028',
        '\ufeff',
        'e\u0301',
        '\U0001f426',
        'x' * 5000,
    ),
    *('nan nan nan', ',' * 40, '# ', '1 ' * 100),
)

_VALUES = (
    *(None, True, False, 0, 1, -1, 2**31, 10**30, -(10**30), 0.5, 1e308, float('nan'), float('inf'), -float('inf')),
    *(
        '',
        'none',
        'nan',
        '../..',
        '/',
        '\x00',
        '\ud800',
        '[bold]',
        'x' * 1000,
        [],
        {},
        [[]],
        [{}],
        {'': None},
        [1] * 50,
    ),
    *({'name': '../x'}, ['x'], [None], {'__class__': 'x'}),
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes, removes, repeats and inserts bytes, most often near the beginning, where the structure is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        if rng.random() < 0.5:
            place = min(place, rng.randrange(200))
        length = rng.choice((1, 1, 2, 4, 8, 64, 1000))
        match rng.randrange(8):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                for index in range(place, min(place + 1, len(changed))):
                    changed[index] ^= 1 << rng.randrange(8)
            case 2:
                width, value = rng.choice((1, 2, 4, 8)), rng.choice(_NUMBERS)
                number = (value % 2 ** (8 * width)).to_bytes(width, rng.choice(('little', 'big')))
                changed[place : place + width] = number
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = rng.randbytes(length)
            case 5:
                changed[place:place] = changed[place : place + length]
            case 6:
                other = rng.randrange(len(changed) + 1)
                changed[place : place + length] = changed[other : other + length]
            case 7 if rng.random() < 0.3:
                del changed[place:]
    return bytes(changed)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Changes fields and lines of a text file, now and then its encoding or line ends."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    lines = data.decode('utf-8', 'replace').split('\n')
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(lines)) if lines else 0
        match rng.randrange(7):
            case 0:
                del lines[place : place + rng.choice((1, 1, 3, 100))]
            case 1:
                lines[place:place] = lines[place : place + 1] * rng.choice((1, 2))
            case 2:
                lines.insert(place, rng.choice(_TOKENS))
            case 3 if lines:
                other = rng.randrange(len(lines))
                lines[place], lines[other] = lines[other], lines[place]
            case _ if lines:
                separator = rng.choice((' ', ',', ' '))
                fields = lines[place].split(separator)
                index = rng.randrange(len(fields))
                match rng.randrange(4):
                    case 0:
                        del fields[index]
                    case 1:
                        fields.insert(index, rng.choice(_TOKENS))
                    case _:
                        fields[index] = rng.choice(_TOKENS)
                lines[place] = separator.join(fields)
    text = rng.choice(('\n', '\n', '\n', '\r\n', '\r')).join(lines)
    return text.encode(rng.choice(('utf-8', 'utf-8', 'utf-8', 'utf-8-sig', 'utf-16', 'latin-1')), 'replace')


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Changes values and keys of a JSON tree, now and then its bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        tree = _mutate_tree(tree, rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.8).encode('utf-8', 'surrogatepass')


def _mutate_tree(tree: Any, rng: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    places = list(_places(tree)) if isinstance(tree, dict | list) else []
    if not places or rng.random() < 0.01:
        return rng.choice(_VALUES)
    # Half of the changes are near the root, where there are few places and much depends on each.
    parent, key = rng.choice(places[: max(len(places) // 8, 1)] if rng.random() < 0.3 else places)
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(('', 'x', '__proto__', 'name', key + ' '))] = parent.pop(key)
        case 2 if isinstance(parent, list):
            parent.insert(key, rng.choice(_VALUES))
        case 3:
            other, name = rng.choice(places)
            try:
                parent[key] = copy.deepcopy(other[name])
            except (KeyError, IndexError):
                parent[key] = None
        case _:
            parent[key] = copy.deepcopy(rng.choice(_VALUES))
    return tree


def _places(tree: Any):
    """Every (container, key) of a tree, from the root downwards."""
    level = [tree]
    while level:
        below = []
        for node in level:
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield node, key
                if isinstance(node[key], dict | list):
                    below.append(node[key])
        level = below
