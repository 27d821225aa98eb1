"""Flattening of a jaxpr: calls are inlined, loops of a known length unrolled, and branches for a platform selected.

What remains are primitives on arrays, one after the other, as a graph of ONNX has them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Primitives that call another jaxpr, and the parameter that holds it. Some have other names in other versions of JAX.
_CALLS = {
    'jit': 'jaxpr',
    'pjit': 'jaxpr',
    'closed_call': 'call_jaxpr',
    'core_call': 'call_jaxpr',
    'custom_jvp_call': 'call_jaxpr',
    'custom_vjp_call': 'call_jaxpr',
    'custom_vjp_call_jaxpr': 'fun_jaxpr',
    'checkpoint': 'jaxpr',
    'remat2': 'jaxpr',
}
# Primitives that matter for gradients and the placement of arrays only.
_IDENTITIES = ('stop_gradient', 'copy', 'copy_p', 'sharding_constraint', 'optimization_barrier')

Emit = Callable[[Any, list[Any]], Sequence[Any]]


class UnknownLoop(Exception):
    """A loop or a branch that depends on the images."""


def walk(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], emit: Emit) -> list[Any]:
    """Calls `emit` for each primitive of a jaxpr, in order.

    Args:
      jaxpr: an open jaxpr.
      constants: the values of its constants.
      arguments: the values of its arguments, whatever `emit` works with.
      emit: takes an equation and the values of its inputs, and returns the values of its outputs.

    Returns:
      The values of the outputs.

    Raises:
      UnknownLoop: the flow depends on values that are no constants.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants)) | dict(zip(jaxpr.invars, arguments))
    read = lambda variable: variable.val if hasattr(variable, 'val') else values[variable]
    for equation in jaxpr.eqns:
        outputs = _step(equation, [read(variable) for variable in equation.invars], emit)
        values.update(zip(equation.outvars, outputs))
    return [read(variable) for variable in jaxpr.outvars]


def _step(equation: Any, inputs: list[Any], emit: Emit) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _inline(params[_CALLS[name]], inputs, emit)
    if name in _IDENTITIES:
        return inputs
    if name == 'platform_index':
        # The branch for no platform in particular: its operations are those that other programs have good code for.
        default = next(index for index, platforms in enumerate(params['platforms']) if platforms is None)
        return [np.int32(default)]
    if name == 'cond':
        branch, *rest = inputs
        if not _is_known(branch):
            raise UnknownLoop('cond')
        return _inline(params['branches'][int(branch)], rest, emit)
    if name == 'scan':
        return _unroll(equation, inputs, emit)
    if name == 'while':
        raise UnknownLoop('while')
    return emit(equation, inputs)


def _inline(inner: Any, inputs: Sequence[Any], emit: Emit) -> list[Any]:
    """Walks a jaxpr, open or closed."""
    return walk(getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ()), inputs, emit)


def _unroll(equation: Any, inputs: list[Any], emit: Emit) -> list[Any]:
    """Repeats the body of a loop that only carries values, such as `lax.fori_loop`.

    The parameters that count constants and carried values differ between versions of JAX. Without scanned inputs and
    stacked outputs, which have one more dimension outside of the body, all outputs are carried.
    """
    closed = equation.params['jaxpr']
    body = getattr(closed, 'jaxpr', closed)
    shapes = lambda variables: [variable.aval.shape for variable in variables]
    if shapes(equation.invars) != shapes(body.invars) or shapes(equation.outvars) != shapes(body.outvars):
        raise UnknownLoop('scan')
    num_constants = len(inputs) - len(body.outvars)
    constants, carry = inputs[:num_constants], inputs[num_constants:]
    for _ in range(equation.params['length']):
        carry = _inline(closed, [*constants, *carry], emit)
    return carry


def _is_known(value: Any) -> bool:
    return isinstance(value, int | np.integer) or (isinstance(value, np.ndarray) and value.ndim == 0)
