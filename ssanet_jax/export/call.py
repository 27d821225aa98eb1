"""One call of a primitive, as the rules of the converter see it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssanet_jax.export.graph import Complex, Graph, Value


class Form(NamedTuple):
    """Shape and type of an array."""

    shape: tuple[Any, ...]
    dtype: np.dtype


class Call(NamedTuple):
    """A primitive with its parameters, and the forms of its outputs."""

    name: str
    params: Mapping[str, Any]
    outputs: Sequence[Form]

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.outputs[0].shape

    @property
    def dtype(self) -> np.dtype:
        return self.outputs[0].dtype


# Adds the nodes of a call to a graph, and returns its output, or a list where there are several.
Rule = Callable[..., Any]


class Unsupported(Exception):
    """An operation that has no counterpart in the graph."""


def of_both_parts(rule: Rule) -> Rule:
    """Lets a rule that only moves elements move those of complex values, too."""

    def apply(graph: Graph, call: Call, *inputs: Value) -> Any:
        if not any(isinstance(value, Complex) for value in inputs):
            return rule(graph, call, *inputs)
        real = call._replace(outputs=[form._replace(dtype=np.dtype(np.float32)) for form in call.outputs])
        results = [rule(graph, real, *(_part(value, part) for value in inputs)) for part in ('real', 'imag')]
        return Complex(*results)

    return apply


def _part(value: Any, part: str) -> Any:
    """The real or imaginary part of a value; integers, such as indices, stay."""
    if isinstance(value, Complex):
        return getattr(value, part)
    if isinstance(value, np.ndarray) and np.iscomplexobj(value):
        return getattr(value, part).astype(np.float32)
    return value
