"""No message advises to delete what may be whole: a file that cannot be read today can be moved away instead."""

import ast
import re
from pathlib import Path

from commands import ROOT

_ADVICE = re.compile(
    r'\b(delete|erase|rm|discard|overwrite)\b|\bremove (it|them|that|the|these|this|all|one)\b', re.IGNORECASE
)
# Advice about lines of a list and fields of a configuration, which the user edits.
_EDITS = re.compile(r'remove (the line|the group|one of them)|at least 1, or remove it|output_stride')


def _messages(path: Path):
    """The string constants of a module, without docstrings."""
    tree = ast.parse(path.read_text())
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.lineno, node.value


def test_no_message_advises_to_delete():
    found = [
        f'{path.relative_to(ROOT)}:{line}: {text}'
        for path in sorted((ROOT / 'ssanet_jax').rglob('*.py'))
        for line, text in _messages(path)
        if ' ' in text and _ADVICE.search(text) and not _EDITS.search(text)
    ]
    assert not found
