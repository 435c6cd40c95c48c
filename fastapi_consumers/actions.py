"""An action: from a marked function to what validates a payload, is called, and serialises what it returns."""

import collections.abc
import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NotRequired, Required, Union, get_args, get_origin

import anyio.to_thread
from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_json
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import HTTPConnection
from typing_extensions import TypedDict, is_typeddict

from .dependencies import Dependencies, is_body, is_dependency
from .exceptions import Problem
from .marks import ActionMark

#: A class with this attribute can be asked for by annotation; its value names the consumer's attribute that is passed,
#: or is empty for the consumer itself.
INJECTED = "__consumer_parameter__"

#: Stands for "the client sent no data", which is not the same as null.
MISSING: Any = PydanticUndefined

_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_SYNC_STREAMS = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)


class Unresolved(Exception):
    """An annotation names something that does not exist yet; it is tried again when the class is first used."""


class Returns:
    """What an action returns: validated, and serialised for a codec."""

    __slots__ = ("_adapter", "to_json", "validate")

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] | None = None
        self.validate: Callable[[Any], Any] | None = None
        self.to_json: Callable[[Any], bytes] = functools.partial(to_json, inf_nan_mode="null", by_alias=True)
        if annotation in (inspect.Parameter.empty, Any, None, type(None), object):
            return
        self._adapter = TypeAdapter(annotation)
        self.validate = self._adapter.validator.validate_python
        self.to_json = functools.partial(self._adapter.serializer.to_json, by_alias=True)

    def to_python(self, value: Any) -> Any:
        """``value`` as dicts, lists and scalars; dates, UUIDs and the like may be left as they are."""
        if self._adapter is None:
            return value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value
        return self._adapter.dump_python(value, by_alias=True)


#: For answers that no action gave: errors, and the results of built-in actions.
ANYTHING = Returns(Any)


class Payload(NamedTuple):
    """How an action takes its data: not at all, as one value, or field by field."""

    kind: Literal["none", "whole", "fields"]
    annotation: Any = None
    required: bool = False
    adapter: TypeAdapter[Any] | None = None
    #: The parameter that takes the whole payload.
    name: str = ""
    #: Values for fields that the client left out and whose default pydantic knows, not the signature.
    factories: tuple[tuple[str, FieldInfo], ...] = ()

    def validate(self, data: Any, *, as_json: bool) -> Any:
        """Raises pydantic's ``ValidationError``. ``as_json`` for data that came as JSON: strict models read it so."""
        if self.adapter is None:
            return MISSING
        if data is MISSING or (data is None and self.kind == "fields"):
            if not self.required and self.kind == "whole":
                return MISSING
            if self.kind == "fields" or _is_mapping_like(self.annotation):
                data = {}
        if as_json and data is not MISSING:
            return self.adapter.validate_json(to_json(data))
        return self.adapter.validate_python(data)

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` with the defaults of ``Field(default=…)`` filled in."""
        return {
            **{name: field.get_default(call_default_factory=True) for name, field in self.factories},
            **data,
        }


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Action:
    """One thing that clients may call. Made once per class that has it; shared by all its instances."""

    name: str
    method: str
    owner: str
    line: int
    function: Callable[..., Any]
    mark: ActionMark
    payload: Payload
    returns: Returns
    stream: bool
    threaded: bool
    dependencies: Dependencies | None
    injected: tuple[tuple[str, str | None], ...]
    #: Calls the function with the consumer and the validated data, if it needs nothing else.
    call: Callable[[Any, Any], Awaitable[Any]]

    is_builtin: ClassVar[bool] = False

    @property
    def concurrent(self) -> bool:
        return self.mark.concurrent

    @property
    def timeout(self) -> float | None:
        """Seconds, or ``None`` for no limit."""
        return self.mark.timeout

    @property
    def deprecated(self) -> bool:
        return self.mark.deprecated

    @property
    def enabled(self) -> bool:
        return self.mark.enabled

    @property
    def plain(self) -> bool:
        """Whether ``call`` is all there is to it: one coroutine, nothing to inject, no limit of time."""
        return not (self.stream or self.dependencies or self.injected or self.mark.timeout)

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    def __repr__(self) -> str:
        return f"<Action {self.name!r} of {self.owner}.{self.method}>"

    def arguments(self, data: Any) -> dict[str, Any]:
        """The payload as keyword arguments."""
        if self.payload.kind == "none" or data is MISSING:
            return {}
        if self.payload.kind == "whole":
            return {self.payload.name: data}
        return self.payload.complete(data) if self.payload.factories else dict(data)

    def start(self, consumer: Any, arguments: dict[str, Any]) -> Any:
        """Call the function with keyword arguments; what comes back is awaited, or iterated if it streams."""
        if self.stream:
            result = self.function(consumer, **arguments)
            return iterate_in_threadpool(result) if self.threaded else result
        if self.threaded:
            return _in_thread(functools.partial(self.function, consumer, **arguments))
        return self.function(consumer, **arguments)


async def _in_thread(function: Callable[[], Any]) -> Any:
    # Abandoned, not awaited, when the socket goes: a thread cannot be stopped, and its result is dropped.
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


class Sorted(NamedTuple):
    """A signature's parameters by who fills them."""

    payload: list[inspect.Parameter]
    injected: list[tuple[str, str | None]]
    dependencies: list[inspect.Parameter]


def compile_action(
    function: Callable[..., Any],
    mark: ActionMark,
    *,
    method: str,
    owner: str,
    where: str,
    localns: dict[str, Any],
    problems: list[Problem],
) -> Action | None:
    """The ``Action`` of a marked function. What is wrong goes into ``problems`` and the answer is ``None``.

    Raises ``Unresolved`` if an annotation names something that does not exist yet.
    """
    before = len(problems)
    for mistake in mark.mistakes:
        problems.append(
            Problem("action-option", where, mistake, "valid options of @action", "see the docstring of action()")
        )
    signature, hints = _signature(function, localns)
    found = _sort_parameters(signature, hints, where, problems)
    if found is None or len(problems) > before:
        return None
    payload = _payload(found.payload, where, problems)
    dependencies = _dependencies(found.dependencies, where, problems)
    stream, threaded, item = _kind(function, hints.get("return", inspect.Parameter.empty))
    returns = _returns(item, where, problems)
    if payload is None or returns is None or len(problems) > before:
        return None
    return Action(
        name=mark.name or method,
        method=method,
        owner=owner,
        line=_line(function),
        function=function,
        mark=mark,
        payload=payload,
        returns=returns,
        stream=stream,
        threaded=threaded,
        dependencies=dependencies,
        injected=tuple(found.injected),
        call=_direct_call(function, payload, found.payload, threaded),
    )


def _line(function: Callable[..., Any]) -> int:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_firstlineno if code is not None else 0


def _signature(function: Callable[..., Any], localns: dict[str, Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), localns=localns, include_extras=True)
    except NameError as error:
        raise Unresolved(str(error)) from None
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters), hints


def _sort_parameters(
    signature: inspect.Signature, hints: dict[str, Any], where: str, problems: list[Problem]
) -> Sorted | None:
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
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
    found = Sorted([], [], [])
    for parameter in parameters[1:]:
        name, annotation, default = parameter.name, parameter.annotation, parameter.default
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            problems.append(
                Problem(
                    "action-variadic-parameter",
                    where,
                    f"the parameter {star}{name}",
                    "named parameters only: a client's keys are never splatted into arguments",
                    "name the fields, or take the whole payload as one parameter `data`",
                )
            )
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            problems.append(
                Problem(
                    "action-positional-only-parameter",
                    where,
                    f"the positional-only parameter {name!r}",
                    "parameters that can be passed by name",
                    "remove the / from the signature",
                )
            )
        elif is_body(annotation, default):
            problems.append(
                Problem(
                    "action-body-parameter",
                    where,
                    f"the parameter {name!r} marked as an HTTP body or form",
                    "payload parameters without a mark: a socket has no HTTP body",
                    "leave out Body(), Form() or File(); the request's data is the payload",
                )
            )
        elif is_dependency(annotation, default):
            found.dependencies.append(parameter)
        elif annotation is inspect.Parameter.empty:
            problems.append(
                Problem(
                    "action-parameter-without-annotation",
                    where,
                    f"the parameter {name!r} without an annotation",
                    "a type for every payload parameter, so that data can be validated",
                    f"annotate it, for example `{name}: str`",
                )
            )
        elif (source := _injection(annotation)) is not None:
            found.injected.append((name, source or None))
        else:
            found.payload.append(parameter)
    return found


def _injection(annotation: Any) -> str | None:
    """The consumer's attribute that a parameter of this type gets, "" for the consumer, ``None`` for a payload."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, HTTPConnection):
        return "websocket"
    source = getattr(annotation, INJECTED, None)
    return source if isinstance(source, str) else None


def _payload(parameters: list[inspect.Parameter], where: str, problems: list[Problem]) -> Payload | None:
    if not parameters:
        return Payload("none")
    whole = next((p for p in parameters if p.name == "data"), None)
    if whole is not None and len(parameters) > 1:
        others = ", ".join(repr(p.name) for p in parameters if p is not whole)
        problems.append(
            Problem(
                "action-data-and-fields",
                where,
                f"the parameter 'data' beside {others}",
                "either `data`, which is the whole payload, or fields by name",
                "put the fields into the model of `data`, or rename `data`",
            )
        )
        return None
    if whole is None and len(parameters) == 1 and _is_model_like(parameters[0].annotation):
        whole = parameters[0]
    try:
        if whole is not None:
            annotation, required = whole.annotation, whole.default is inspect.Parameter.empty
            if isinstance(whole.default, FieldInfo):
                annotation = Annotated[annotation, whole.default]
            return Payload("whole", annotation, required, TypeAdapter(annotation), whole.name)
        return _fields_payload(parameters)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, ValueError) as error:
        if isinstance(error, PydanticUndefinedAnnotation) or _not_fully_defined(error):
            raise Unresolved(str(error)) from None
        problems.append(
            Problem(
                "action-payload-type",
                where,
                f"a payload that pydantic cannot validate: {str(error).splitlines()[0]}",
                "types that pydantic knows",
                "use a BaseModel, a dataclass, a TypedDict or a plain type",
            )
        )
        return None


def _fields_payload(parameters: list[inspect.Parameter]) -> Payload:
    fields: dict[str, Any] = {}
    factories: list[tuple[str, FieldInfo]] = []
    required_any = False
    for parameter in parameters:
        annotation, required = parameter.annotation, parameter.default is inspect.Parameter.empty
        if isinstance(parameter.default, FieldInfo):
            required = parameter.default.is_required()
            if not required:
                factories.append((parameter.name, parameter.default))
            annotation = Annotated[annotation, _without_default(parameter.default)]
        required_any = required_any or required
        fields[parameter.name] = Required[annotation] if required else NotRequired[annotation]
    shape = typed_dict("Data", fields)
    return Payload("fields", shape, required_any, TypeAdapter(shape), factories=tuple(factories))


def typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """A ``TypedDict`` made at run time; type checkers know only literal ones."""
    make: Any = TypedDict
    return make(name, fields)


def _without_default(field: FieldInfo) -> Any:
    field = copy.copy(field)
    field.default, field.default_factory = PydanticUndefined, None
    return field


def _not_fully_defined(error: Exception) -> bool:
    return isinstance(error, PydanticUserError) and error.code in ("class-not-fully-defined", "undefined-annotation")


def _is_model_like(annotation: Any) -> bool:
    """A model, a dataclass, a TypedDict, or a union of these and ``None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_model_like(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return bool(members) and all(map(_is_model_like, members))
    if isinstance(value := getattr(annotation, "__value__", None), type) and not isinstance(annotation, type):
        return _is_model_like(value)
    return _is_mapping_like(annotation)


def _is_mapping_like(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return (
        isinstance(origin, type) and (issubclass(origin, BaseModel) or dataclasses.is_dataclass(origin))
    ) or is_typeddict(origin)


def _dependencies(parameters: list[inspect.Parameter], where: str, problems: list[Problem]) -> Dependencies | None:
    if not parameters:
        return None
    try:
        return Dependencies.of_parameters(parameters)
    except Exception as error:  # FastAPI raises AssertionError, FastAPIError and more for a wrong parameter.
        problems.append(
            Problem(
                "action-dependency",
                where,
                f"a dependency that FastAPI refuses: {(str(error) or type(error).__name__).splitlines()[0]}",
                "Depends, Path, Query, Header or Cookie as in a FastAPI endpoint",
                "see FastAPI's message",
            )
        )
        return None


def _kind(function: Callable[..., Any], annotation: Any) -> tuple[bool, bool, Any]:
    """Whether it streams, whether it runs in a thread, and the type of what it returns or yields."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inner.func
    item = get_args(annotation)[0] if get_args(annotation) else Any
    if inspect.isasyncgenfunction(inner):
        return True, False, item if get_origin(annotation) in _STREAMS else Any
    if inspect.isgeneratorfunction(inner):
        return True, True, item if get_origin(annotation) in _SYNC_STREAMS else Any
    return False, not inspect.iscoroutinefunction(inner), annotation


def _returns(annotation: Any, where: str, problems: list[Problem]) -> Returns | None:
    try:
        return Returns(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, ValueError) as error:
        if isinstance(error, PydanticUndefinedAnnotation) or _not_fully_defined(error):
            raise Unresolved(str(error)) from None
        problems.append(
            Problem(
                "action-return-type",
                where,
                f"a return type that pydantic cannot serialise: {str(error).splitlines()[0]}",
                "a type that pydantic knows, or no return annotation",
                "return a model or plain data",
            )
        )
        return None


def _direct_call(
    function: Callable[..., Any], payload: Payload, parameters: list[inspect.Parameter], threaded: bool
) -> Callable[[Any, Any], Awaitable[Any]]:
    """The cheapest way from (consumer, data) to the coroutine, chosen here so that no message has to choose."""
    target = function
    if threaded:

        def target(*args: Any, **kwargs: Any) -> Any:
            return _in_thread(functools.partial(function, *args, **kwargs))

    if payload.kind == "none":
        return lambda consumer, data: target(consumer)
    if payload.kind == "whole":
        name = parameters[0].name
        if payload.required:
            return lambda consumer, data: target(consumer, **{name: data})
        return lambda consumer, data: target(consumer) if data is MISSING else target(consumer, **{name: data})
    if payload.factories:
        return lambda consumer, data: target(consumer, **payload.complete(data))
    return lambda consumer, data: target(consumer, **data)
