"""Conversion of a function of JAX to a graph of ONNX: trace, flatten, fold constants, apply a rule per primitive."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import onnx

from ssanet_jax.export import elementwise_rules, gather_rules, product_rules, reduction_rules, shape_rules
from ssanet_jax.export.call import Call, Form, Unsupported
from ssanet_jax.export.flatten import UnknownLoop, walk
from ssanet_jax.export.graph import Complex, Empty, Graph, Tensor

RULES = {
    **elementwise_rules.RULES,
    **shape_rules.RULES,
    **reduction_rules.RULES,
    **product_rules.RULES,
    **gather_rules.RULES,
}


def to_onnx(
    function: Callable[[jax.Array], Mapping[str, jax.Array]], spec: jax.ShapeDtypeStruct, input_name: str
) -> onnx.ModelProto:
    """Converts a function of one array.

    Args:
      function: returns its outputs by name.
      spec: the form of its argument, from `program.batch_spec`.
      input_name: the name of the argument in the graph.

    Raises:
      Unsupported: it has an operation without a rule.
    """
    traced, form = jax.make_jaxpr(function, return_shape=True)(spec)
    graph = Graph(input_name)
    given = Tensor(input_name, tuple(spec.shape), np.dtype(spec.dtype), tuple(spec.shape))
    constants = [np.asarray(value) for value in traced.consts]
    try:
        results = walk(traced.jaxpr, constants, [given], lambda equation, inputs: _apply(graph, equation, inputs))
    except UnknownLoop as error:
        raise Unsupported(f'a loop whose length depends on the images ({error})') from error
    # A dictionary is flattened in the order of its sorted keys.
    named = dict(zip(sorted(form), results))
    return graph.model(spec, {name: _as_tensor(graph, named[name]) for name in form})


def _apply(graph: Graph, equation: Any, inputs: list[Any]) -> list[Any]:
    """The values of the outputs of a primitive: constants if all inputs are, else tensors of the graph."""
    inputs = [
        value if isinstance(value, Tensor | Complex | Empty) else np.asarray(value, variable.aval.dtype)
        for value, variable in zip(inputs, equation.invars)
    ]
    outputs = [Form(tuple(v.aval.shape), np.dtype(v.aval.dtype)) for v in equation.outvars]
    if all(isinstance(value, np.ndarray) for value in inputs) and all(_is_static(form.shape) for form in outputs):
        found = equation.primitive.bind(*inputs, **equation.params)
        return [np.asarray(value) for value in (found if equation.primitive.multiple_results else [found])]
    if all(0 in form.shape for form in outputs):
        return [Empty(*form) for form in outputs]
    name = equation.primitive.name
    if name not in RULES:
        raise Unsupported(f'the operation {name}')
    found = RULES[name](graph, Call(name, equation.params, outputs), *inputs)
    return found if isinstance(found, list) else [found]


def _is_static(shape: tuple[Any, ...]) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def _as_tensor(graph: Graph, value: Any) -> Tensor:
    if isinstance(value, np.ndarray):
        return Tensor(graph.name(value), value.shape, value.dtype, value.shape)
    return value
