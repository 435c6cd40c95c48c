"""Exceptions in a log: where and why, but not what a client sent."""

import logging
import traceback
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError

from fastapi_consumers import Consumer, GroupConsumer, JSONConsumer, action, add_consumers, path
from fastapi_consumers.history import History
from fastapi_consumers.observing import Observer
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.redaction import without_input
from fastapi_consumers.testing import WebsocketCommunicator

SECRET = "s3cret-payload"


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int


def fails() -> ValidationError:
    try:
        Item.model_validate({"number": SECRET, SECRET: 1})
    except ValidationError as error:
        return error
    raise AssertionError


def logged(error: BaseException) -> str:
    return "".join(traceback.format_exception(without_input(error)))


def test_any_other_exception_is_itself():
    for error in (ValueError(SECRET), ExceptionGroup("several", [KeyError(1)])):
        assert without_input(error) is error


def test_a_validation_error_keeps_its_place_its_name_and_what_was_wrong():
    text = logged(fails())
    assert SECRET not in text
    assert "in fails" in text
    assert "ValidationError: 2 validation errors for Item" in text
    assert "number: Input should be a valid integer, unable to parse string as an integer [int_parsing]" in text
    assert "…: Extra inputs are not permitted [extra_forbidden]" in text


def test_a_request_that_fastapi_refused_does_too():
    error = RequestValidationError([{"loc": ("query", "n"), "msg": "No.", "type": "int", "input": SECRET}])
    assert "1 validation error for a request\nquery.n: No. [int]" in logged(error)
    assert SECRET not in logged(error)


def test_causes_contexts_groups_and_notes_are_told_too():
    def chain() -> BaseException:
        try:
            try:
                raise fails()
            except ValidationError as error:
                raise LookupError(f"not found: {error}") from error
        except LookupError as error:
            error.add_note("a note")
            return ExceptionGroup("several", [error, OSError("a disk")])

    error = chain()
    text = logged(error)
    assert SECRET in "".join(traceback.format_exception(error))
    assert SECRET not in text
    for part in ("several", "LookupError: not found: 2 validation", "a note", "OSError: a disk", "direct cause"):
        assert part in text


def test_exceptions_that_refer_to_each_other_in_a_circle_end():
    first, second = fails(), KeyError("x")
    first.__context__, second.__context__ = second, first
    assert SECRET not in logged(first)


def test_so_many_errors_are_named_and_names_are_cut():
    class Many(BaseModel):
        numbers: dict[str, int]

    with pytest.raises(ValidationError) as caught:
        Many.model_validate({"numbers": {f"{n}" * 100: SECRET for n in range(50)}})
    text = logged(caught.value)
    assert "50 validation errors" in text
    assert text.count("[int_parsing]") == 20
    assert max(map(len, text.splitlines())) < 200


class Broken(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        if action is None and getattr(consumer.connection, "is_accepted", False):
            raise RuntimeError("a permission")
        return True


class Room(GroupConsumer):
    permission_classes = [Broken]

    @action
    async def parse(self, raw: str) -> None:
        Item.model_validate({"number": raw})

    @action(concurrent=True)
    async def beside(self, raw: str) -> None:
        Item.model_validate({"number": raw})

    @action
    async def wrong(self, raw: str) -> Item:
        return {"number": raw}  # type: ignore[return-value]


class Plain(GroupConsumer):
    @action
    async def nothing(self) -> None: ...


class Raw(Consumer):
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        Item.model_validate_json(text_data)


class Picky(JSONConsumer):
    @classmethod
    def decode_json(cls, text: Any) -> Any:
        return Item.model_validate_json(text)


class Torn(Consumer):
    async def disconnect(self, code: int) -> None:
        Item.model_validate({"number": SECRET})


class Unanswered(Torn):
    @staticmethod
    def answer(consumer: Any, error: Any) -> None:
        raise LookupError(str(error)) from error

    exception_handlers = {ValidationError: answer}


class Withholding(BasePermission):
    def has_delivery_permission(self, consumer: Any, delivery: Any) -> bool:
        return bool(Item.model_validate(delivery.data))


class Withheld(GroupConsumer):
    groups = ["withheld"]
    history = History(size=10)
    permission_classes = [Withholding]

    @action
    async def past(self) -> int:
        return len((await self.read_history("withheld")).events)


class Looking(Observer):
    def call_ended(self, call: Any) -> None:
        if call.failure is not None:
            Item.model_validate({"number": SECRET})


async def test_what_fails_beside_an_action_tells_no_payload_either(caplog):
    caplog.set_level(logging.DEBUG)
    app = FastAPI()
    consumers = add_consumers(
        app, [path("/torn", Unanswered), path("/withheld", Withheld), path("/room", Room)], observers=[Looking()]
    )
    async with WebsocketCommunicator(app, "/torn"):
        pass
    async with WebsocketCommunicator(app, "/withheld") as client:
        await consumers.broadcast("withheld", "said", {"number": SECRET})
        assert await client.call("past", timeout=20) == 0
        assert (await client.receive_json_from(10))["type"] == "joined"
    epoch = (await consumers.history("withheld").read(limit=1)).epoch
    async with WebsocketCommunicator(app, f"/withheld?recover={epoch}:0") as client:
        assert (await client.receive_json_from(10))["recovered"] is True
    async with WebsocketCommunicator(app, "/room") as client:
        await client.send_json_to({"action": SECRET, "request_id": 2})
        assert (await client.receive_json_from(10))["error"]["code"] == "internal_error"
    told = [caplog.handler.format(record) for record in caplog.get_records("call")]
    said = (
        "an exception handler failed on",
        "on Delivery(",
        "on event 1",
        "the event is withheld",
        "observer's Looking",
    )
    for text in said:
        assert any(text in each and "validation error" in each for each in told), text
    assert not [text for text in told if SECRET in text]


async def test_no_payload_gets_into_a_log_at_any_level(caplog):
    caplog.set_level(logging.DEBUG)
    app = FastAPI()
    add_consumers(app, [path(f"/{cls.__name__.lower()}", cls) for cls in (Room, Plain, Raw, Picky, Torn)])
    async with WebsocketCommunicator(app, "/room") as client:
        for name in ("parse", "beside", "wrong"):
            await client.send_json_to({"action": name, "request_id": 1, "data": {"raw": SECRET}})
            assert (await client.receive_json_from(10))["error"]["code"] == "internal_error"
        # A permission that fails on a request for something that does not exist.
        await client.send_json_to({"action": SECRET, "request_id": 2, "data": {SECRET: SECRET}})
        assert (await client.receive_json_from(10))["error"]["code"] == "internal_error"
    async with WebsocketCommunicator(app, "/plain") as client:
        for frame in (SECRET, f'{{"action": "{SECRET}"', '{"action": 1, "data": "' + SECRET + '"}'):
            await client.send_to(frame)
            await client.receive_json_from(10)
    async with WebsocketCommunicator(app, "/raw") as client:
        await client.send_to(SECRET)
        await client.assert_closed(1011, timeout=20)
    async with WebsocketCommunicator(app, "/picky") as client:
        await client.send_to(SECRET)
        await client.receive_json_from(10)
    async with WebsocketCommunicator(app, "/torn"):
        pass
    told = [caplog.handler.format(record) for record in caplog.get_records("call")]
    assert sum("Traceback" in text for text in told) == 6
    assert sum("validation error" in text for text in told) == 5
    assert not [text for text in told if SECRET in text]
