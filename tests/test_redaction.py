"""Exceptions and lines of servers in a log: where and why, but not what a client sent."""

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
from fastapi_consumers.redaction import SERVER_LOGGERS, QueryRedaction, without_input
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


# -- lines of servers --------------------------------------------------------------------------------------------------


def line(*args: Any, msg: str = "%s", key: str = "token") -> logging.LogRecord:
    # As Logger.info() makes it: a mapping that is the only argument is the arguments.
    record = logging.makeLogRecord({"msg": msg})
    record.args = args[0] if len(args) == 1 and isinstance(args[0], dict) else args
    assert QueryRedaction(key).filter(record) is True
    return record


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/room?token=s3cret", "/room?token=***"),
        ("/room?a=1&token=s3cret/x+y%20z'\"&b=2", "/room?a=1&token=***&b=2"),
        ("/room?token=s3cret&token=s3cret", "/room?token=***&token=***"),
        ("/room?t%6Fk%65n=s3cret", "/room?t%6Fk%65n=***"),
        ("/login?next=/room?token=s3cret", "/login?next=/room?token=***"),
        ("/room?token=", "/room?token=***"),
        ("token=s3cret", "token=***"),
    ],
)
def test_the_value_of_the_parameter_is_not_told(path, told):
    assert line(path).getMessage() == told


@pytest.mark.parametrize("path", ["/room", "/token/a", "/room?mytoken=1&tokens=2&Token=3", "/room?token", "/token=1"])
def test_all_else_is_left_as_it_was(path):
    assert line(path).getMessage() == path


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("my key", "/?my+key=s3cret"),
        ("my key", "/?my%20key=s3cret"),
        ("é", "/?%C3%a9=s3cret"),
        ("a.b[]", "/?a.b[]=s3cret"),
        ("a.b[]", "/?a.b%5B%5D=s3cret"),
    ],
)
def test_a_parameter_of_any_name_is_known_however_it_is_written(key, path):
    assert line(path, key=key).getMessage() == path.replace("s3cret", "***")


def test_the_arguments_of_an_access_log_keep_their_places():
    from uvicorn.logging import AccessFormatter

    record = line("192.0.2.1:5", "GET", "/?token=s3cret", "1.1", 200, msg='%s - "%s %s HTTP/%s" %d')
    assert record.args == ("192.0.2.1:5", "GET", "/?token=***", "1.1", 200)
    formatter = AccessFormatter("%(request_line)s %(status_code)s", use_colors=False)
    assert formatter.format(record) == "GET /?token=*** HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("msg", "args"),
    [
        ("/?token=%s", ("s3cret",)),
        ("/?token=s3cret", ()),
        ("scope=%s", ([{"query_string": b"a=1&token=s3cret", "path": "/"}],)),
        ("%s scope=%s", ("x", {"query_string": b"token=s3cret"})),
        ("%(Uq)s", ({"Uq": "/?token=s3cret"},)),
    ],
)
def test_a_token_is_found_wherever_it_stands_in_a_line(msg, args):
    told = line(*args, msg=msg).getMessage()
    assert "s3cret" not in told
    assert "token=***" in told


def test_a_line_whose_arguments_do_not_fit_is_left_to_its_handler():
    record = line("/?token=s3cret", 1, msg="%s")
    assert record.args == ("/?token=***", 1)


def tokens_app(key: str | None = "token") -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/plain", Plain)], query_token_key=key)
    return app


def heard(caplog: pytest.LogCaptureFixture) -> str:
    for name in SERVER_LOGGERS:
        logging.getLogger(name).info('%s - "WebSocket %s" [accepted]', "192.0.2.1:5", "/?token=s3cret&key=s3cret")
    told = {record.getMessage().partition("?")[2] for record in caplog.records}
    caplog.clear()
    assert len(told) == 1
    return told.pop()


async def test_servers_name_no_token_while_one_of_several_apps_is_open(caplog):
    caplog.set_level(logging.INFO)
    before = [logging.getLogger(name).filters[:] for name in SERVER_LOGGERS]
    first, second, third = (tokens_app(key).state.consumers for key in ("token", "token", "key"))
    assert heard(caplog) == 'token=s3cret&key=s3cret" [accepted]'
    for _ in range(2):
        await first.open()
        await first.open()
        await second.open()
        assert heard(caplog) == 'token=***&key=s3cret" [accepted]'
        await third.open()
        await first.close()
        assert heard(caplog) == 'token=***&key=***" [accepted]'
        await second.close()
        await third.close()
        assert heard(caplog) == 'token=s3cret&key=s3cret" [accepted]'
    assert [logging.getLogger(name).filters for name in SERVER_LOGGERS] == before


async def test_where_no_query_holds_tokens_the_servers_log_is_not_touched(caplog):
    caplog.set_level(logging.INFO)
    async with tokens_app(None).state.consumers:
        assert heard(caplog) == 'token=s3cret&key=s3cret" [accepted]'
