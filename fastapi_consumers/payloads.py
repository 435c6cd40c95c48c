"""What an action takes and what it gives, as pydantic validators and serialisers made of its annotations."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, get_args, get_origin

from pydantic import AfterValidator, BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_json
from typing_extensions import TypedDict

from .codecs import find_not_finite
from .exceptions import Problem
from .signatures import Unresolved, is_model, is_model_like

#: Stands for "the client sent no data", which is not the same as null.
MISSING: Any = PydanticUndefined


class Returns:
    """What an action returns: validated, and serialised for a codec."""

    __slots__ = ("_adapter", "to_json", "validate")

    def __init__(self, annotation: Any) -> None:
        self._adapter: TypeAdapter[Any] | None = None
        #: ``None`` where anything may be returned. Raises pydantic's ``ValidationError``.
        self.validate: Callable[[Any], Any] | None = None
        self.to_json: Callable[[Any], bytes] = functools.partial(to_json, inf_nan_mode="null", by_alias=True)
        if annotation in (inspect.Parameter.empty, Any, None, type(None), object):
            return
        self._adapter = _adapter(annotation)
        self.validate = _validate_of(self._adapter)
        self.to_json = functools.partial(self._adapter.serializer.to_json, by_alias=True)

    @property
    def adapter(self) -> TypeAdapter[Any] | None:
        """``None`` where anything may be returned."""
        return self._adapter

    def to_python(self, value: Any) -> Any:
        """``value`` as dicts, lists and scalars; dates, UUIDs and the like may be left as they are."""
        if self._adapter is None:
            return value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value
        return self._adapter.dump_python(value, by_alias=True)


def _validate_of(adapter: TypeAdapter[Any]) -> Callable[[Any], Any]:
    # Objects of a database become models by their attributes, as in FastAPI.
    validate = functools.partial(adapter.validator.validate_python, from_attributes=True)
    schema: Any = adapter.core_schema
    revalidates = {each.get("revalidate_instances", "never") for each in (schema, schema.get("config", {}))}
    if schema["type"] != "model" or revalidates != {"never"}:
        return validate
    model = schema["cls"]
    # A model's own objects come back as they are, and most actions return one: pydantic need not be asked.
    return lambda value: value if type(value) is model else validate(value)


#: For answers that no action gave: errors, and the results of built-in actions.
ANYTHING = Returns(Any)


class Payload(NamedTuple):
    """How an action takes its data: not at all, as one value, or field by field."""

    kind: Literal["none", "whole", "fields"]
    annotation: Any = None
    #: Whether data has to be sent.
    required: bool = False
    adapter: TypeAdapter[Any] | None = None
    #: The parameter that takes the whole payload.
    name: str = ""
    #: Parameters whose default pydantic knows, not the signature.
    factories: tuple[tuple[str, FieldInfo], ...] = ()

    def validate(self, data: Any, *, as_json: bool) -> Any:
        """The data as the action takes it; ``MISSING`` if the signature's default is to be used.

        Raises pydantic's ``ValidationError``, also for a number that is not finite. ``as_json`` for data that came as
        JSON: strict models read it so.
        """
        if self.adapter is None:
            return MISSING
        if data is MISSING or (data is None and self.kind == "fields"):
            if self.kind == "fields" or (self.required and is_model(self.annotation)):
                # An object without keys, so that the error says which ones are missing.
                data = {}
            elif not self.required:
                return self.factories[0][1].get_default(call_default_factory=True) if self.factories else MISSING
            else:
                raise _validation_error("missing", ())
        valid = self.adapter.validate_json(to_json(data)) if as_json else self.adapter.validate_python(data)
        if (place := find_not_finite(valid)) is not None:
            raise _validation_error("finite_number", place)
        return valid

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """``data`` with the defaults of ``Field(default=…)`` filled in."""
        defaults = {
            name: field.get_default(call_default_factory=True) for name, field in self.factories if name not in data
        }
        return {**defaults, **data}


def _validation_error(kind: str, place: tuple[int | str, ...]) -> ValidationError:
    # Pydantic's own, so that the client cannot tell who found it.
    return ValidationError.from_exception_data("data", [{"type": kind, "loc": place, "input": None}])


def payload_of(parameters: list[inspect.Parameter], where: str, problems: list[Problem]) -> Payload | None:
    """The payload that these parameters take; ``None`` if it is wrong. Raises ``Unresolved``."""
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
    if whole is None and len(parameters) == 1 and is_model_like(parameters[0].annotation):
        whole = parameters[0]
    try:
        if whole is not None:
            annotation, required, default = _field(whole)
            factories = ((whole.name, default),) if default is not None else ()
            return Payload("whole", annotation, required, _adapter(annotation), whole.name, factories)
        return _fields_payload(parameters)
    except Exception as error:  # Pydantic raises errors of many kinds for a wrong annotation or constraint.
        if _not_defined_yet(error):
            raise Unresolved(str(error)) from None
        problems.append(
            Problem(
                "action-payload-type",
                where,
                f"a payload that pydantic cannot validate: {_first_line(error)}",
                "types that pydantic knows",
                "use a BaseModel, a dataclass, a TypedDict or a plain type",
            )
        )
        return None


def then(payload: Payload, function: Callable[[Any], Any]) -> Payload:
    """The payload with ``function`` called on the whole of it when it is valid."""
    annotation: Any = Annotated[payload.annotation, AfterValidator(function)]
    return payload._replace(annotation=annotation, adapter=_adapter(annotation))


def _fields_payload(parameters: list[inspect.Parameter]) -> Payload:
    fields: dict[str, Any] = {}
    factories: list[tuple[str, FieldInfo]] = []
    required_any = False
    for parameter in parameters:
        annotation, required, default = _field(parameter)
        if default is not None:
            factories.append((parameter.name, default))
        required_any = required_any or required
        fields[parameter.name] = Required[annotation] if required else NotRequired[annotation]
    shape = typed_dict("Data", fields)
    return Payload("fields", shape, required_any, _adapter(shape), factories=tuple(factories))


def _field(parameter: inspect.Parameter) -> tuple[Any, bool, FieldInfo | None]:
    """A parameter's annotation without any default, whether it has none, and the ``Field`` that holds one."""
    annotation, default = parameter.annotation, parameter.default
    marks: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        marks = tuple(rest)
    if isinstance(default, FieldInfo):
        marks = (*marks, default)
    fields = [mark for mark in marks if isinstance(mark, FieldInfo) and not mark.is_required()]
    for mark in marks:
        annotation = Annotated[annotation, _without_default(mark) if isinstance(mark, FieldInfo) else mark]
    if default is not inspect.Parameter.empty and not isinstance(default, FieldInfo):
        return annotation, False, None
    return annotation, not fields, fields[-1] if fields else None


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Complete, and not one that would find only at the first message that a model waits for a name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not annotation.__pydantic_complete__:
        annotation.model_rebuild(raise_errors=True)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if not getattr(adapter, "pydantic_complete", True):
        adapter.rebuild(raise_errors=True)
    return adapter


def _without_default(field: FieldInfo) -> Any:
    field = copy.copy(field)
    field.default, field.default_factory = PydanticUndefined, None
    # What was given explicitly is what pydantic merges; it has no public way to take something back.
    given = {name: value for name, value in field._attributes_set.items() if name not in ("default", "default_factory")}
    field._attributes_set = given
    return field


def typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """A ``TypedDict`` made at run time; type checkers know only literal ones."""
    make: Any = TypedDict
    return make(name, fields)


def returns_of(annotation: Any, where: str, problems: list[Problem]) -> Returns | None:
    """What an action of this return annotation gives; ``None`` if it is wrong. Raises ``Unresolved``."""
    try:
        return Returns(annotation)
    except Exception as error:  # As above.
        if _not_defined_yet(error):
            raise Unresolved(str(error)) from None
        problems.append(
            Problem(
                "action-return-type",
                where,
                f"a return type that pydantic cannot serialise: {_first_line(error)}",
                "a type that pydantic knows, or no return annotation",
                "return a model or plain data",
            )
        )
        return None


def _not_defined_yet(error: Exception) -> bool:
    return isinstance(error, Unresolved | PydanticUndefinedAnnotation | NameError) or (
        isinstance(error, PydanticUserError) and error.code in ("class-not-fully-defined", "undefined-annotation")
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
