"""Events that a class declares: their names, and the types of their data.

``@event_model("said")`` gives a model the name that its event has on the wire. What a class lists in ``events`` is
checked when it is sent, and documented.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from .codecs import EncodedJSON

T = TypeVar("T", bound=type[Any])

EVENT_MODEL = "__consumer_event_model__"
MAX_EVENT_NAME = 128
#: How many errors of one event are told.
MAX_ERRORS = 5


class InvalidEvent(ValueError):
    """An event was to be sent whose data does not fit what its class declares.

    It is a mistake of the server's: the log has it, and a client whose action it ends is told ``internal_error``. It
    names places and reasons, and never the data.
    """


def event_model(name: str) -> Callable[[T], T]:
    """Mark a model, dataclass or TypedDict as the data of the event of this name.

    ::

        @event_model("said")
        class Said(BaseModel):
            text: str

        class Room(GroupConsumer):
            events = [Said]

    Classes derived from it are no events by that: they need a name of their own. Raises ``TypeError`` for what is no
    class, ``ValueError`` for a name that cannot be one.
    """
    check_event_name(name)

    def decorate(cls: T) -> T:
        if not isinstance(cast(object, cls), type):
            raise TypeError(f"@event_model marks a class; found {cls!r}")
        setattr(cls, EVENT_MODEL, name)
        return cls

    return decorate


def check_event_name(name: Any) -> str:
    """``name`` if an event may have it: text of 1 to 128 characters. Raises ``ValueError`` for any other."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_EVENT_NAME:
        raise ValueError(f"an event's name is text of 1 to {MAX_EVENT_NAME} characters; found {name!r:.200}")
    return name


class EventModel:
    """One declared event: ``name`` on the wire, and ``annotation``, the type of its data."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.name = name
        self.annotation = annotation

    def __repr__(self) -> str:
        return f"{self.name}: {getattr(self.annotation, '__name__', self.annotation)}"

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Raises what pydantic raises for a type that it does not know, or one that waits for a name."""
        annotation = self.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation.model_rebuild(raise_errors=True)
        return TypeAdapter(annotation)

    @property
    def description(self) -> str:
        """The docstring of a class of the user's own."""
        cls = self.annotation
        doc = vars(cls).get("__doc__") if isinstance(cls, type) and cls.__module__ != "builtins" else None
        # A dataclass without one is given its signature.
        return doc if isinstance(doc, str) and not doc.startswith(f"{cls.__name__}(") else ""

    def encode(self, data: Any, owner: str) -> EncodedJSON:
        """``data``, valid and as JSON. Objects are read by their attributes. Raises ``InvalidEvent``.

        Args:
            owner: who declares it, for the error.
        """
        try:
            valid = self.adapter.validate_python(data, from_attributes=True)
        except ValidationError as error:
            raise InvalidEvent(
                f"The event {self.name!r}, as {owner} declares it, cannot have this data: {_reasons(error)}"
            ) from None
        return EncodedJSON(self.adapter.dump_json(valid, by_alias=True))


def _reasons(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, each['loc'])) or 'the data'}: {each['msg']}" for each in errors[:MAX_ERRORS]]
    more = len(errors) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "") + "."


def event_models_of(entries: Any) -> Mapping[str, EventModel]:
    """The events that a class's ``events`` declares: a list of marked classes, or a dict of name to type.

    Raises ``TypeError`` or ``ValueError`` for what declares none, with how to mend it.
    """
    if isinstance(entries, Mapping):
        return {check_event_name(name): EventModel(name, annotation) for name, annotation in entries.items()}
    found: dict[str, EventModel] = {}
    for entry in entries:
        # Its own mark: one that is inherited names another event.
        name = vars(entry).get(EVENT_MODEL) if isinstance(entry, type) else None
        if name is None:
            raise TypeError(f'{entry!r} has no name: write @event_model("…") above it, or a dict of name to type')
        if name in found:
            raise ValueError(f"{entry!r} and {found[name].annotation!r} are both named {name!r}")
        found[name] = EventModel(name, entry)
    return found
