"""Rules for operations on single elements."""

from typing import Any

import jax
import numpy as np

from ssanet_jax.export.call import Call, Rule, Unsupported
from ssanet_jax.export.fusion import fuse_bias, fuse_clip, fuse_relu
from ssanet_jax.export.graph import Complex, Empty, Graph, Tensor

# Primitives with an operator of the same meaning.
_SAME = {
    'add': 'Add',
    'add_any': 'Add',
    'sub': 'Sub',
    'mul': 'Mul',
    'div': 'Div',
    'max': 'Max',
    'min': 'Min',
    'abs': 'Abs',
    'neg': 'Neg',
    'sign': 'Sign',
    'exp': 'Exp',
    'log': 'Log',
    'sqrt': 'Sqrt',
    'sin': 'Sin',
    'cos': 'Cos',
    'tanh': 'Tanh',
    'logistic': 'Sigmoid',
    'erf': 'Erf',
    'floor': 'Floor',
    'ceil': 'Ceil',
    'eq': 'Equal',
    'lt': 'Less',
    'le': 'LessOrEqual',
    'gt': 'Greater',
    'ge': 'GreaterOrEqual',
    'and': 'And',
    'or': 'Or',
    'not': 'Not',
    'xor': 'Xor',
}
_OF_BOOLEANS = ('and', 'or', 'not', 'xor')  # for other types, they are operations on bits


def _same(graph: Graph, call: Call, *inputs: Any) -> Tensor:
    if call.name in _OF_BOOLEANS and call.dtype != np.bool_:
        raise Unsupported(f'{call.name} of {call.dtype}')
    return graph.elementwise(_SAME[call.name], inputs, call.shape, call.dtype)


def _add(graph: Graph, call: Call, x: Any, y: Any) -> Tensor:
    return fuse_bias(graph, call, x, y) or fuse_bias(graph, call, y, x) or _same(graph, call, x, y)


def _max(graph: Graph, call: Call, x: Any, y: Any) -> Tensor:
    return fuse_relu(graph, call, x, y) or fuse_relu(graph, call, y, x) or _same(graph, call, x, y)


def _min(graph: Graph, call: Call, x: Any, y: Any) -> Tensor:
    return fuse_clip(graph, call, x, y) or fuse_clip(graph, call, y, x) or _same(graph, call, x, y)


def _composed(*operators: str) -> Rule:
    """Operators one after the other; the first takes all inputs."""

    def rule(graph: Graph, call: Call, *inputs: Any) -> Tensor:
        value = graph.elementwise(operators[0], inputs, call.shape, call.dtype)
        for operator in operators[1:]:
            value = graph.elementwise(operator, [value], call.shape, call.dtype)
        return value

    return rule


def _square(graph: Graph, call: Call, x: Any) -> Tensor:
    return graph.elementwise('Mul', [x, x], call.shape, call.dtype)


def _integer_pow(graph: Graph, call: Call, x: Any) -> Tensor:
    exponent = np.asarray(call.params['y'], call.dtype)
    return graph.elementwise('Pow', [x, exponent], call.shape, call.dtype)


def _erfc(graph: Graph, call: Call, x: Any) -> Tensor:
    erf = graph.elementwise('Erf', [x], call.shape, call.dtype)
    return graph.elementwise('Sub', [np.ones((), call.dtype), erf], call.shape, call.dtype)


def _rem(graph: Graph, call: Call, x: Any, y: Any) -> Tensor:
    """The remainder with the sign of the dividend, as in C."""
    return graph.elementwise('Mod', [x, y], call.shape, call.dtype, fmod=1)


def _round(graph: Graph, call: Call, x: Any) -> Tensor:
    if call.params['rounding_method'] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise Unsupported('rounding away from zero')
    return graph.elementwise('Round', [x], call.shape, call.dtype)


def _clamp(graph: Graph, call: Call, low: Any, x: Any, high: Any) -> Tensor:
    lowered = graph.elementwise('Max', [x, low], call.shape, call.dtype)
    return graph.elementwise('Min', [lowered, high], call.shape, call.dtype)


def _select_n(graph: Graph, call: Call, which: Any, *cases: Any) -> Tensor:
    if len(cases) != 2 or which.dtype != np.bool_:
        return _select_by_index(graph, call, which, cases)
    otherwise, chosen = cases
    if call.dtype != np.bool_:
        return graph.elementwise('Where', [which, chosen, otherwise], call.shape, call.dtype)
    boolean = lambda kind, *inputs: graph.elementwise(kind, inputs, call.shape, np.bool_)  # `Where` has no booleans
    return boolean('Or', boolean('And', which, chosen), boolean('And', boolean('Not', which), otherwise))


def _select_by_index(graph: Graph, call: Call, which: Any, cases: Any) -> Tensor:
    value = cases[0]
    for index, case in enumerate(cases[1:], 1):
        is_this = graph.elementwise('Equal', [which, np.asarray(index, which.dtype)], call.shape, np.bool_)
        value = graph.elementwise('Where', [is_this, case, value], call.shape, call.dtype)
    return value


def _convert(graph: Graph, call: Call, x: Any) -> Any:
    if np.issubdtype(call.dtype, np.complexfloating):
        return Complex(x, np.zeros(x.shape, np.float32) if isinstance(x, np.ndarray) else _zeros_like(graph, x))
    return graph.cast(x, call.dtype)


def _zeros_like(graph: Graph, x: Tensor | Empty) -> Any:
    return x if isinstance(x, Empty) else graph.elementwise('Mul', [x, np.float32(0)], x.shape, np.float32)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    'add': _add,
    'max': _max,
    'min': _min,
    'ne': _composed('Equal', 'Not'),
    'rsqrt': _composed('Sqrt', 'Reciprocal'),
    'square': _square,
    'integer_pow': _integer_pow,
    'erfc': _erfc,
    'rem': _rem,
    'round': _round,
    'clamp': _clamp,
    'select_n': _select_n,
    'convert_element_type': _convert,
}
