"""Signatures: how a function is called, and how a decorated one shows it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature by which the function is really called."""
    if bound := bound_for_a_call(function):
        return inspect.signature(bound.func)
    return inspect.signature(function)


def argument_binder(
    signature: inspect.Signature,
) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Return a function of a call's arguments: see bind_arguments(), which takes longer.

    In most calls, of views above all, each parameter is given, and none is special.
    """
    parameters = signature.parameters
    are_plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values())

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if are_plain and len(args) + len(kwargs) == len(parameters):
            arguments = {**dict(zip(parameters, args, strict=False)), **kwargs}
            if arguments.keys() == parameters.keys():
                return arguments
        return bind_arguments(signature, args, kwargs)

    return bind


def bind_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the call's arguments that have a name, with defaults and the members of **kwargs."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            del arguments[parameter.name]
        elif parameter.kind is parameter.VAR_KEYWORD:
            # A positional-only argument wins over a member of **kwargs of the same name.
            arguments = arguments.pop(parameter.name) | arguments
    return arguments


def bound_for_a_call(function: Callable[..., Any]) -> functools.partial[Any] | None:
    """Return the partial that `method_decorator` makes of a method for one call.

    None if the function neither is one nor wraps one. It is a partial of a bound method whose
    `__wrapped__` claims that it takes `self`.
    """
    innermost = inspect.unwrap(function, stop=_is_bound_for_a_call)
    return innermost if _is_bound_for_a_call(innermost) else None


def _is_bound_for_a_call(function: Callable[..., Any]) -> bool:
    return isinstance(function, functools.partial) and hasattr(function, "__wrapped__")


def copy_signature(locked: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Give the decorated callable the function's signature and annotations.

    `inspect.signature` would find them by `__wrapped__`. `inspect.getfullargspec`, and code that
    evaluates string annotations with a callable's `__globals__`, don't follow that.
    """
    if bound_for_a_call(function):
        return  # nothing inspects it, and each call makes another
    seen = seen_signature(function)
    # Skip a callable that takes anything: method_decorator tries a decorator on such a dummy, and
    # copies its attributes to the method, which has another signature.
    if any(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in seen.parameters.values()):
        vars(locked)["__signature__"] = seen
    if annotations := getattr(function, "__annotations__", None):
        locked.__annotations__ = _evaluated(annotations, function)


def seen_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; string annotations are evaluated if that is possible yet."""
    signature = inspect.signature(function)
    annotations = {name: p.annotation for name, p in signature.parameters.items()}
    evaluated = _evaluated({**annotations, "return": signature.return_annotation}, function)
    returned = evaluated.pop("return")
    parameters = [
        parameter.replace(annotation=evaluated[name])
        for name, parameter in signature.parameters.items()
    ]
    return signature.replace(parameters=parameters, return_annotation=returned)


def _evaluated(annotations: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations, strings evaluated in the namespace of the function's module."""
    defined: Any = inspect.unwrap(function)
    names = getattr(defined, "__globals__", {})
    type_parameters = {kind.__name__: kind for kind in getattr(defined, "__type_params__", ())}
    return {
        name: _evaluate(annotation, names, type_parameters)
        for name, annotation in annotations.items()
    }


def _evaluate(annotation: Any, names: dict[str, Any], type_parameters: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names, type_parameters)  # noqa: S307 - the module's own code
    except Exception:  # noqa: BLE001 - whatever uses the annotation raises its own error
        return annotation
