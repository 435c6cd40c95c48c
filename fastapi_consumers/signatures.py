"""A function's parameters, sorted by who fills them: the client, the connection or FastAPI's injection."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from typing_extensions import is_typeddict

from .dependencies import is_body, is_dependency
from .exceptions import Problem

#: A class with this attribute can be asked for by annotation; its value names the consumer's attribute that is passed,
#: or is empty for the consumer itself.
INJECTED = "__consumer_parameter__"

#: What an annotation of the first parameter cannot be, if that is the consumer.
_VALUES = (str, int, float, bool, bytes, list, dict, tuple, set)


class Unresolved(Exception):
    """An annotation names something that does not exist yet; it is tried again when the class is first used."""


class Sorted(NamedTuple):
    """A signature's parameters by who fills them, and the annotation of what is returned."""

    payload: list[inspect.Parameter]
    #: Name, and the consumer's attribute to pass, or ``None`` for the consumer itself.
    injected: list[tuple[str, str | None]]
    dependencies: list[inspect.Parameter]
    returns: Any = inspect.Parameter.empty


def innermost(function: Callable[..., Any]) -> Any:
    """What is called in the end: inside wrappers and partials, and the ``__call__`` of an object."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    return inner if inspect.isroutine(inner) else inspect.unwrap(type(inner).__call__)


def line_of(function: Any) -> int:
    """The line on which a function begins, its decorators included; 0 if it was not written in Python."""
    code = getattr(innermost(function), "__code__", None) if callable(function) else None
    return code.co_firstlineno if code is not None else 0


def sort_parameters(
    function: Callable[..., Any], localns: dict[str, Any], where: str, problems: list[Problem]
) -> Sorted | None:
    """What is wrong goes into ``problems``; ``None`` if nothing can be said about the rest.

    Raises ``Unresolved`` if an annotation names something that does not exist yet.
    """
    try:
        hints = typing.get_type_hints(innermost(function), localns=localns, include_extras=True)
        signature = inspect.signature(function)
    except (NameError, AttributeError) as error:
        # AttributeError: a module that is imported in a circle does not have the name yet.
        raise Unresolved(str(error)) from None
    except Exception as error:  # Whatever evaluating an annotation raises.
        problems.append(
            Problem(
                "action-annotation",
                where,
                f"an annotation that cannot be evaluated: {type(error).__name__}: {error}",
                "annotations that are types",
                "mend the annotation",
            )
        )
        return None
    parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
    if not _begins_with_consumer(parameters):
        problems.append(
            Problem(
                "action-without-self",
                where,
                "a function whose first parameter is not the consumer",
                "self, or the consumer, as the first parameter",
                "add it as the first parameter",
            )
        )
        return None
    found = Sorted([], [], [], hints.get("return", inspect.Parameter.empty))
    for parameter in parameters[1:]:
        parameter = _without_alias(parameter)
        if (problem := _mistake(parameter, where)) is not None:
            problems.append(problem)
        elif is_dependency(parameter.annotation, parameter.default):
            found.dependencies.append(parameter)
        elif (source := _injection(parameter.annotation)) is not None:
            found.injected.append((parameter.name, source or None))
        else:
            found.payload.append(parameter)
    return found


def _begins_with_consumer(parameters: list[inspect.Parameter]) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        return False
    annotation = parameters[0].annotation
    return (
        (get_origin(annotation) or annotation) not in _VALUES
        and not is_model_like(annotation)
        and not is_dependency(annotation, parameters[0].default)
    )


def _without_alias(parameter: inspect.Parameter) -> inspect.Parameter:
    """A type alias for ``Annotated[…, Depends(…)]`` stands for what it names."""
    annotation = unaliased(parameter.annotation)
    if annotation is not parameter.annotation and get_origin(annotation) is Annotated:
        return parameter.replace(annotation=annotation)
    return parameter


def unaliased(annotation: Any) -> Any:
    """What an alias made by the ``type`` statement, or by ``TypeAliasType``, stands for."""
    # Told by name: typing_extensions has a class of its own, also where typing has one.
    while type(annotation).__name__ == "TypeAliasType":
        try:
            annotation = annotation.__value__
        except (NameError, AttributeError) as error:
            raise Unresolved(str(error)) from None
    return annotation


def _mistake(parameter: inspect.Parameter, where: str) -> Problem | None:
    name, annotation = parameter.name, parameter.annotation
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        return Problem(
            "action-variadic-parameter",
            where,
            f"the parameter {star}{name}",
            "named parameters only: a client's keys are never splatted into arguments",
            "name the fields, or take the whole payload as one parameter `data`",
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return Problem(
            "action-positional-only-parameter",
            where,
            f"the positional-only parameter {name!r}",
            "parameters that can be passed by name",
            "remove the / from the signature",
        )
    if is_body(annotation, parameter.default):
        return Problem(
            "action-body-parameter",
            where,
            f"the parameter {name!r} marked as an HTTP body or form",
            "payload parameters without a mark: a socket has no HTTP body",
            "leave out Body(), Form() or File(); the request's data is the payload",
        )
    if annotation is inspect.Parameter.empty and not is_dependency(annotation, parameter.default):
        return Problem(
            "action-parameter-without-annotation",
            where,
            f"the parameter {name!r} without an annotation",
            "a type for every payload parameter, so that data can be validated",
            f"annotate it, for example `{name}: str`",
        )
    kind = _plain_type(annotation)
    if issubclass(kind, Request | Response | BackgroundTasks):
        return Problem(
            "action-http-parameter",
            where,
            f"the parameter {name!r} of the type {kind.__name__}, which only HTTP has",
            "WebSocket, the consumer's types, Depends, or payload",
            "read headers and the query from a parameter of the type WebSocket or HTTPConnection",
        )
    return None


def _plain_type(annotation: Any) -> type:
    """The class that an annotation names, or would if it were not optional or annotated; ``object`` for any other."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _plain_type(members[0]) if len(members) == 1 else object
    return annotation if isinstance(annotation, type) and get_origin(annotation) is None else object


def _injection(annotation: Any) -> str | None:
    """The consumer's attribute that a parameter of this type gets, "" for the consumer, ``None`` for a payload."""
    kind = _plain_type(annotation)
    if issubclass(kind, HTTPConnection):
        return "websocket"
    source = getattr(kind, INJECTED, None)
    return source if isinstance(source, str) else None


def is_model_like(annotation: Any) -> bool:
    """A model, a dataclass, a TypedDict, or a union of these and ``None``."""
    annotation = unaliased(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_model_like(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return bool(members) and all(map(is_model_like, members))
    return is_model(annotation)


def is_model(annotation: Any) -> bool:
    """A model, a dataclass or a TypedDict: something whose JSON is an object."""
    annotation = unaliased(annotation)
    if get_origin(annotation) is Annotated:
        return is_model(get_args(annotation)[0])
    kind = get_origin(annotation) or annotation
    return (isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))) or (
        is_typeddict(kind)
    )
