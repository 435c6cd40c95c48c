"""From pydantic's types to schemas of AsyncAPI, which are a superset of JSON Schema, draft 07."""

import inspect
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python

from ..actions import Action

Schema = dict[str, Any]
#: ``validation`` for what clients send, ``serialization`` for what they are sent.
Mode = Literal["validation", "serialization"]

REFERENCE = "#/components/schemas/{model}"


class Wanted(NamedTuple):
    """A type whose schema is asked for."""

    adapter: TypeAdapter[Any]
    mode: Mode


class _Draft07(GenerateJsonSchema):
    """Pydantic's schemas are those of draft 2020-12, and have a ``discriminator`` as OpenAPI writes it."""

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        found = super().tuple_schema(schema)
        if "prefixItems" in found:
            rest = found.pop("items", None)
            found["items"] = found.pop("prefixItems")
            if rest is not None or found.get("maxItems") != len(found["items"]):
                found["additionalItems"] = True if rest is None else rest
        return found

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        found = super().tagged_union_schema(schema)
        # Each of the alternatives says by a constant which one it is.
        found.pop("discriminator", None)
        return found

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        # A type that only Python has. What is known of the rest is worth more than an error.
        return {}


class Schemas:
    """The schemas of many types, and the definitions that they share."""

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        inputs = {(id(adapter), mode): adapter for adapter, mode in wanted}
        found, rest = TypeAdapter.json_schemas(
            [(key, mode, adapter) for (key, mode), adapter in inputs.items()],
            ref_template=REFERENCE,
            schema_generator=_Draft07,
        )
        self._found: dict[tuple[int, str], Schema] = {(key, mode): schema for (key, mode), schema in found.items()}
        #: Name to schema: what stands under ``components``.
        self.definitions: dict[str, Schema] = dict(rest.get("$defs", {}))
        #: The objects made of fields, by their adapters' ids.
        self._fields: dict[int, Schema] = {}
        # Kept, since their ids are the keys.
        self._inputs = inputs

    def of(self, adapter: TypeAdapter[Any] | None, mode: Mode) -> Schema:
        """The schema of a type that was asked for; any value at all for ``None``."""
        return {} if adapter is None else dict(self._found[id(adapter), mode])

    def payload(self, action: Action) -> Schema | None:
        """What an action takes; ``None`` if it takes nothing."""
        if action.payload.kind == "none":
            return None
        schema = self.of(action.payload.adapter, "validation")
        if action.payload.kind == "whole":
            return schema
        key = id(action.payload.adapter)
        if key in self._fields:
            return self._fields[key]
        # The object that the fields make has no name of its own, and only pydantic needs one.
        if "$ref" in schema:
            schema = self.definitions.pop(schema["$ref"].rpartition("/")[2])
        schema.pop("title", None)
        self._fields[key] = schema
        properties: dict[str, Schema] = schema.get("properties", {})
        for name, default in _defaults(action).items():
            if name in properties:
                properties[name] = {**properties[name], "default": default}
        return schema


def _defaults(action: Action) -> dict[str, Any]:
    """The defaults of the function's own parameters, as far as JSON can show them."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(action.function).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            try:
                found[name] = to_jsonable_python(parameter.default, inf_nan_mode="null")
            except PydanticSerializationError:
                continue
    factories = {name: field for name, field in action.payload.factories if field.default_factory is None}
    return {**found, **{name: to_jsonable_python(field.default) for name, field in factories.items()}}
