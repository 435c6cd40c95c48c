"""The native protocol: one pass where all is well, a precise error where it is not, and never an exception."""

import datetime as dt
import enum
import json
import math
import uuid
from typing import Annotated, Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from fastapi_consumers import GroupConsumer, action
from fastapi_consumers.actions import MISSING, Action, Returns
from fastapi_consumers.codecs import encode_json
from fastapi_consumers.exceptions import ActionNotFound, ConsumerError, InvalidData, InvalidFrame, Throttled
from fastapi_consumers.messages import Event, Frame, Notice, Reply, Request, text_frame
from fastapi_consumers.protocols import JSON_FRAMER, MSGPACK_FRAMER, ContentFramer, NativeReader
from fastapi_consumers.protocols import native as native_module
from fastapi_consumers.serializers import FlatRequest, ResponseSerializer


class Colour(enum.Enum):
    RED = "red"


class Say(BaseModel):
    text: str


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime
    id: uuid.UUID
    colour: Colour


class Weight(BaseModel):
    kilos: float = 0
    more: Any = None


class Blob(BaseModel):
    raw: bytes
    name: str = ""


class Room(GroupConsumer):
    @action
    async def say(self, data: Say) -> None: ...

    @action
    async def move(self, x: int, y: Annotated[int, Field(ge=0)] = 0) -> None: ...

    @action
    async def optional(self, x: int = 1, y: int = Field(2)) -> None: ...

    @action
    async def maybe(self, data: Say | None = None) -> None: ...

    @action
    async def ping(self) -> None: ...

    @action
    async def weigh(self, data: Weight) -> None: ...

    @action
    async def strict(self, data: Strict) -> None: ...

    @action
    async def blob(self, data: Blob) -> None: ...

    @action
    async def anything(self, data: Any) -> None: ...

    @action(enabled=False)
    async def sayy(self) -> None: ...


ACTIONS = dict(Room._meta.actions)
JSON = NativeReader(ACTIONS)
PACKED = NativeReader(ACTIONS, msgpack=True)
#: Without actions that take numbers, so that no frame is looked over for them.
FEW = NativeReader({name: ACTIONS[name] for name in ("say", "ping")})
ONE = NativeReader({"say": ACTIONS["say"]})
FLAT = NativeReader(ACTIONS, request_serializer_class=FlatRequest)


def read(content: Any) -> list[Request]:
    """One request, read from JSON, from MessagePack and from what was decoded already."""
    return [JSON.read(json.dumps(content)), PACKED.read(ormsgpack.packb(content)), JSON.read_content(content)]


def refused(content: Any) -> tuple[Request, ConsumerError]:
    """The one answer that all ways of reading have for a wrong request."""
    found = read(content)
    (first, error), *rest = [(request, request.error) for request in found]
    assert error is not None
    for request, other in rest:
        assert other is not None
        assert (request.action, request.request_id, type(other), other.body()) == (
            first.action,
            first.request_id,
            type(error),
            error.body(),
        )
    return first, error


# -- what is right -----------------------------------------------------------------------------------------------------

RIGHT: list[tuple[dict[str, Any], Request]] = [
    ({"action": "say", "data": {"text": "hi"}}, Request("say", None, Say(text="hi"))),
    ({"action": "say", "request_id": 1, "data": {"text": "hi", "more": 1}}, Request("say", 1, Say(text="hi"))),
    ({"data": {"text": "hi"}, "request_id": "a", "action": "say"}, Request("say", "a", Say(text="hi"))),
    ({"action": "say", "request_id": None, "data": {"text": ""}}, Request("say", None, Say(text=""))),
    ({"action": "say", "request_id": 2**63 - 1, "data": {"text": ""}}, Request("say", 2**63 - 1, Say(text=""))),
    ({"action": "say", "request_id": -(2**63), "data": {"text": ""}}, Request("say", -(2**63), Say(text=""))),
    ({"action": "say", "request_id": "x" * 255, "data": {"text": ""}}, Request("say", "x" * 255, Say(text=""))),
    ({"action": "move", "request_id": 0, "data": {"x": "3"}}, Request("move", 0, {"x": 3})),
    ({"action": "optional", "request_id": ""}, Request("optional", "", {})),
    ({"action": "optional", "data": None}, Request("optional", None, {})),
    ({"action": "maybe"}, Request("maybe", None, MISSING)),
    ({"action": "maybe", "data": None}, Request("maybe", None, None)),
    ({"action": "ping", "request_id": 1, "data": {"ignored": 1}, "more": 2}, Request("ping", 1, MISSING)),
    ({"action": "ping"}, Request("ping", None, MISSING)),
    ({"action": "anything", "data": None}, Request("anything", None, None)),
    ({"action": "anything", "data": [1.5, {"a": []}]}, Request("anything", None, [1.5, {"a": []}])),
    ({"action": "weigh", "data": {"kilos": 1e300}}, Request("weigh", None, Weight(kilos=1e300))),
    ({"action": "anything", "data": "NaN Infinity 1e999"}, Request("anything", None, "NaN Infinity 1e999")),
]


@pytest.mark.parametrize(("content", "request_"), RIGHT, ids=[json.dumps(content)[:50] for content, _ in RIGHT])
def test_a_request_is_read_the_same_in_every_way(content: Any, request_: Request) -> None:
    assert read(content) == [request_] * 3


@pytest.mark.parametrize("reader", [JSON, PACKED, FEW, ONE])
def test_what_is_right_is_read_in_one_pass(reader: NativeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError("a second pass")

    monkeypatch.setattr(native_module, "decode_json", never)
    monkeypatch.setattr(reader, "_request", never)
    content = {"action": "say", "request_id": 1, "data": {"text": "hi"}}
    frame = json.dumps(content) if reader.takes_text else ormsgpack.packb(content)
    assert reader.read(frame) == Request("say", 1, Say(text="hi"))


def test_strict_models_read_what_the_wire_has() -> None:
    data = {"at": "2024-01-02T03:04:05Z", "id": str(uuid.UUID(int=1)), "colour": "red"}
    for request in read({"action": "strict", "data": data}):
        assert request.error is None
        assert request.data == Strict(
            at=dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC), id=uuid.UUID(int=1), colour=Colour.RED
        )


def test_bytes_come_over_msgpack() -> None:
    request = PACKED.read(ormsgpack.packb({"action": "blob", "data": {"raw": b"\xff\x00", "name": "n"}}))
    assert request.data == Blob(raw=b"\xff\x00", name="n")
    wrong = PACKED.read(ormsgpack.packb({"action": "blob", "data": {"raw": b"\xff", "name": 3}}))
    assert isinstance(wrong.error, InvalidData)
    assert [detail["loc"] for detail in wrong.error.details] == [["name"]]


def test_a_reader_says_which_frames_it_takes() -> None:
    assert JSON.takes_text
    assert not PACKED.takes_text


# -- near misses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, True, 3, 1.5, "text", [], ["say"], [{"action": "say"}]])
def test_a_request_is_an_object(content: Any) -> None:
    request, error = refused(content)
    assert (request.action, request.request_id) == (None, None)
    assert isinstance(error, InvalidFrame)
    assert "Expected an object" in error.message


@pytest.mark.parametrize("name", [None, True, 3, [], {}, ["say"]])
def test_the_action_is_text(name: Any) -> None:
    request, error = refused({"action": name, "request_id": 7})
    assert (request.action, request.request_id) == (None, 7)
    assert isinstance(error, InvalidFrame)
    assert '"action" to be text' in error.message


def test_a_request_without_an_action_keeps_its_id() -> None:
    request, error = refused({"request_id": "a", "data": {"text": "hi"}})
    assert (request.action, request.request_id) == (None, "a")
    assert "found none" in error.message


@pytest.mark.parametrize("request_id", [True, False, 1.0, 1.5, [], {}, [1], "x" * 256, 2**63, -(2**63) - 1])
def test_a_request_id_is_a_number_or_short_text(request_id: Any) -> None:
    content = {"action": "say", "request_id": request_id, "data": {"text": "hi"}}
    found = [JSON.read(json.dumps(content)), JSON.read_content(content)]
    if not isinstance(request_id, int) or abs(request_id) < 2**63:
        found.append(PACKED.read(ormsgpack.packb(content)))
    for request in found:
        assert isinstance(request.error, InvalidFrame)
        assert request.request_id is None
        assert '"request_id"' in request.error.message
        assert str(request_id) not in request.error.message or len(str(request_id)) < 5


WRONG_DATA: list[tuple[str, Any, list[tuple[list[Any], str]]]] = [
    ("say", {}, [(["text"], "missing")]),
    ("say", {"text": 3}, [(["text"], "string_type")]),
    ("say", None, [([], "model_type")]),
    ("say", "text", [([], "model_type")]),
    ("say", [], [([], "model_type")]),
    ("move", {}, [(["x"], "missing")]),
    ("move", {"x": "a", "y": -1}, [(["x"], "int_parsing"), (["y"], "greater_than_equal")]),
    ("move", [], [([], "dict_type")]),
    ("maybe", 3, [([], "model_type")]),
    ("strict", {"at": 1, "id": 2, "colour": "blue"}, []),
]


@pytest.mark.parametrize(("name", "data", "places"), WRONG_DATA)
def test_wrong_data_is_told_place_by_place(name: str, data: Any, places: list[tuple[list[Any], str]]) -> None:
    request, error = refused({"action": name, "request_id": 5, "data": data})
    assert (request.action, request.request_id) == (name, 5)
    assert isinstance(error, InvalidData)
    assert all(set(detail) == {"loc", "type", "message"} for detail in error.details)
    found = [(detail["loc"], detail["type"].replace("dataclass", "model")) for detail in error.details]
    assert found == places or not places


@pytest.mark.parametrize(("name", "place"), [("say", ["text"]), ("move", ["x"]), ("anything", []), ("weigh", None)])
def test_missing_data_is_told_as_missing(name: str, place: Any) -> None:
    if place is None:
        assert read({"action": name}) == [Request(name, None, Weight())] * 3
        return
    _, error = refused({"action": name})
    assert [(detail["loc"], detail["type"]) for detail in error.details] == [(place, "missing")]


def test_an_unknown_action_is_answered_with_the_nearest_name() -> None:
    request, error = refused({"action": "sya", "request_id": 1})
    assert (request.action, request.request_id) == ("sya", 1)
    assert isinstance(error, ActionNotFound)
    assert error.message == "There is no action 'sya'. Did you mean 'say'?"


def test_a_disabled_action_is_not_recommended() -> None:
    _, error = refused({"action": "sayyy"})
    assert "'sayy'" not in error.message.removeprefix("There is no action 'sayyy'.")


def test_names_that_are_like_none_get_no_advice() -> None:
    _, error = refused({"action": "qqqqqqqq"})
    assert error.message == "There is no action 'qqqqqqqq'."


def test_a_long_name_is_cut_in_the_answer() -> None:
    request, error = refused({"action": "x" * 10_000, "request_id": 1})
    assert request.action == "x" * 255
    assert len(error.message) < 120


def test_names_and_errors_with_odd_characters_can_be_answered() -> None:
    for name in ('"', "\\", "\n", "\x00", "é", "\u2028", "'"):
        request, error = refused({"action": name, "request_id": name})
        reply = Reply(request.action, request.request_id, "error", error=error)
        assert json.loads(text_of(JSON_FRAMER.reply(reply)))["action"] == name


# -- numbers that are not finite ---------------------------------------------------------------------------------------

NOT_FINITE = ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999", "1e0999", "9" * 310 + ".0"]


@pytest.mark.parametrize("number", NOT_FINITE, ids=lambda number: number[:8])
@pytest.mark.parametrize(
    "frame",
    [
        '{"action":"weigh","data":{"kilos":%s}}',
        '{"action":"weigh","data":{"more":[%s]}}',
        '{"action":"anything","data":%s}',
        '{"action":"anything","data":{"a":[1,{"b":%s}]}}',
        '{"action":"ping","data":%s}',
        '{"action":"ping","request_id":%s}',
        '{"action":%s}',
        '{"action":"say","data":{"text":"hi","more":%s}}',
    ],
)
def test_no_number_comes_in_that_is_not_finite(frame: str, number: str) -> None:
    request = JSON.read(frame % number)
    # What nothing takes may be there.
    if ("ping" in frame or '"more":%s' in frame) and request.error is None:
        assert request.data in (MISSING, Say(text="hi"))
        return
    assert isinstance(request.error, InvalidFrame | InvalidData)


@pytest.mark.parametrize("exponent", ["e99", "E+98"])
def test_many_digits_and_a_short_exponent_are_no_way_around(exponent: str) -> None:
    request = JSON.read('{"action":"anything","data":' + "9" * 250 + exponent + "}")
    assert isinstance(request.error, InvalidFrame)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 400,
        "inf",
        "\\u0069nf",
    ],
)
def test_text_does_not_become_a_number_that_is_not_finite(text: str) -> None:
    request = JSON.read('{"action":"weigh","data":{"kilos":"' + text + '"}}')
    assert isinstance(request.error, InvalidData)
    assert [(detail["loc"], detail["type"]) for detail in request.error.details] == [(["kilos"], "finite_number")]


def test_a_whole_number_does_not_become_an_infinite_one() -> None:
    request = JSON.read('{"action":"weigh","data":{"kilos":' + "9" * 400 + "}}")
    assert isinstance(request.error, InvalidData)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_msgpack_has_no_number_that_is_not_finite_either(value: float) -> None:
    for content in ({"action": "weigh", "data": {"kilos": value}}, {"action": "anything", "data": [value]}):
        assert isinstance(PACKED.read(ormsgpack.packb(content)).error, InvalidFrame)


def test_a_frame_with_such_a_number_keeps_its_request_id() -> None:
    for request_id in (7, "seven"):
        content = {"action": "weigh", "request_id": request_id, "data": {"kilos": math.nan}}
        assert PACKED.read(ormsgpack.packb(content)).request_id == request_id
        assert JSON.read(json.dumps(content)).request_id == request_id
    assert PACKED.read(ormsgpack.packb({"action": "weigh", "request_id": math.nan})).request_id is None
    assert PACKED.read(ormsgpack.packb([math.nan])).request_id is None
    assert PACKED.read(b"\xc1").request_id is None


@pytest.mark.parametrize("text", ["inf", "NaN"])
def test_text_does_not_become_one_over_msgpack_either(text: str) -> None:
    request = PACKED.read(ormsgpack.packb({"action": "weigh", "data": {"kilos": text}}))
    assert isinstance(request.error, InvalidData)


# -- never an exception ------------------------------------------------------------------------------------------------

READERS = [JSON, FEW, ONE, FLAT]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["text", "x"]), inner),
    max_leaves=10,
)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from([*ACTIONS, "cancel"]) | ANY_JSON,
        "request_id": st.integers(0, 9) | ANY_JSON,
        "data": st.fixed_dictionaries({}, optional={"text": TEXT, "x": ANY_JSON, "kilos": ANY_JSON}) | ANY_JSON,
    },
)


def check(request: Request, *, sendable: bool = True) -> None:
    """A request that dispatch can go on with, and whose error can be sent."""
    if request.error is None:
        assert request.action in ACTIONS
    elif sendable:
        reply = Reply(request.action, request.request_id, "error", error=request.error)
        json.loads(text_of(JSON_FRAMER.reply(reply)))
        ormsgpack.unpackb(bytes_of(MSGPACK_FRAMER.reply(reply)))


@given(st.text() | TEXT.map(lambda tail: '{"action":"say","data":' + tail))
def test_any_text_is_read(frame: str) -> None:
    for reader in READERS:
        check(reader.read(frame))


@given(st.binary() | st.binary().map(lambda tail: b"\x82\xa6action\xa3say\xa4data" + tail))
def test_any_bytes_are_read(frame: bytes) -> None:
    check(PACKED.read(frame))


@given(NEAR | ANY_JSON)
def test_near_misses_are_read(content: Any) -> None:
    for reader in READERS:
        check(reader.read(json.dumps(content)))


@given(NEAR)
def test_contents_that_someone_else_decoded_are_read(content: Any) -> None:
    for reader in READERS:
        check(reader.read_content(content))


@pytest.mark.parametrize("depth", [150, 199, 201, 1000, 100_000])
def test_deep_nesting_is_read(depth: int) -> None:
    frames = [
        '{"action":"anything","data":' + "[" * depth + "1" + "]" * depth + "}",
        '{"action":"say","data":' + '{"a":' * depth + "1" + "}" * depth + "}",
        "[" * depth,
    ]
    for frame in frames:
        for reader in READERS:
            check(reader.read(frame))
    check(PACKED.read(b"\x82\xa6action\xa8anything\xa4data" + b"\x91" * depth + b"\x01"))
    check(PACKED.read(b"\x82\xa6action\xa5weigh\xa4data" + b"\x81\xa4more" * depth + b"\xc4\x01a"))


# -- requests of another shape -----------------------------------------------------------------------------------------


def test_a_request_serializer_reads_its_own_shape() -> None:
    assert FLAT.read('{"action":"say","request_id":1,"text":"hi"}') == Request("say", 1, Say(text="hi"))
    wrong = FLAT.read('{"action":"say","request_id":1}')
    assert isinstance(wrong.error, InvalidData)
    assert (wrong.action, wrong.request_id) == ("say", 1)
    assert isinstance(FLAT.read('{"action":"say","request_id":true,"text":"hi"}').error, InvalidFrame)
    assert isinstance(FLAT.read('{"text":"hi","request_id":1}').error, InvalidFrame)
    assert FLAT.read('{"text":"hi","request_id":1}').request_id == 1
    assert isinstance(FLAT.read('{"action":"nothing"}').error, ActionNotFound)
    assert FLAT.read('{"action":"optional"}') == Request("optional", None, {})


def test_a_plain_model_may_be_the_shape() -> None:
    class Envelope(BaseModel):
        action: str
        id: int = 0
        data: Any = None

    reader = NativeReader(ACTIONS, request_serializer_class=Envelope)
    assert reader.read('{"action":"say","data":{"text":"hi"}}') == Request("say", None, Say(text="hi"))


def test_missing_data_is_missing_in_a_plain_model_too() -> None:
    class Envelope(BaseModel):
        action: str
        data: Any = None

    reader = NativeReader(ACTIONS, request_serializer_class=Envelope)
    assert reader.read('{"action":"maybe"}') == Request("maybe", None, MISSING)


# -- frames ------------------------------------------------------------------------------------------------------------


def text_of(frame: Frame) -> str:
    assert set(frame.message) == {"type", "text"}
    text: str = frame.message["text"]
    return text


def bytes_of(frame: Frame) -> bytes:
    assert set(frame.message) == {"type", "bytes"}
    data: bytes = frame.message["bytes"]
    assert frame.size == len(data)
    return data


REPLIES: list[tuple[Reply, dict[str, Any]]] = [
    (Reply("say", 1, "ok"), {"type": "reply", "action": "say", "request_id": 1, "status": "ok", "data": None}),
    (
        Reply("say", None, "ok", {"a": [1]}),
        {"type": "reply", "action": "say", "request_id": None, "status": "ok", "data": {"a": [1]}},
    ),
    (
        Reply('q"é', "i\\d", "partial", "x"),
        {"type": "reply", "action": 'q"é', "request_id": "i\\d", "status": "partial", "data": "x"},
    ),
    (
        Reply(None, 1, "error", error=InvalidFrame("No.")),
        {
            "type": "reply",
            "action": None,
            "request_id": 1,
            "status": "error",
            "error": {"code": "invalid_frame", "message": "No."},
        },
    ),
    (
        Reply("say", 1, "error", error=Throttled(1.5)),
        {
            "type": "reply",
            "action": "say",
            "request_id": 1,
            "status": "error",
            "error": {"code": "throttled", "message": "Too many requests.", "retryable": True, "retry_after": 1.5},
        },
    ),
]


@pytest.mark.parametrize(("reply", "content"), REPLIES)
def test_replies_are_framed_alike_in_every_codec(reply: Reply, content: dict[str, Any]) -> None:
    own = ContentFramer(lambda content: text_frame(encode_json(content).decode()))
    assert json.loads(text_of(JSON_FRAMER.reply(reply))) == content
    assert list(json.loads(text_of(JSON_FRAMER.reply(reply)))) == list(content)
    assert ormsgpack.unpackb(bytes_of(MSGPACK_FRAMER.reply(reply))) == content
    assert json.loads(text_of(own.reply(reply))) == content


@pytest.mark.parametrize("framer", [JSON_FRAMER, MSGPACK_FRAMER], ids=["json", "msgpack"])
@pytest.mark.parametrize("request_id", [1, 0, -1, "a", 'q"', None])
def test_the_shorter_way_frames_the_same(framer: Any, request_id: Any) -> None:
    returns = Returns(Say)
    for _ in range(2):
        found = framer.ok("say", request_id, Say(text="é"), returns)
        assert found == framer.reply(Reply("say", request_id, "ok", Say(text="é")), returns)


class Rich(BaseModel):
    at: dt.datetime
    id: uuid.UUID
    colour: Colour
    number: float = math.nan
    renamed: int = Field(1, serialization_alias="theName")
    by_key: dict[int, tuple[int, ...]] = {1: (2,)}


RICH = Rich(at=dt.datetime(2024, 1, 2, tzinfo=dt.UTC), id=uuid.UUID(int=1), colour=Colour.RED)


@pytest.mark.parametrize("returns", [Returns(Rich), Returns(Any), Returns(Rich | None)])
@pytest.mark.parametrize("name", ["json", "msgpack", "content"])
def test_rich_data_is_the_same_in_every_codec(returns: Returns, name: str) -> None:
    reply = Reply("say", 1, "ok", RICH)
    if name == "msgpack":
        data = ormsgpack.unpackb(bytes_of(MSGPACK_FRAMER.reply(reply, returns)))["data"]
    else:
        own = ContentFramer(lambda content: text_frame(encode_json(content).decode()))
        framer = JSON_FRAMER if name == "json" else own
        data = json.loads(text_of(framer.reply(reply, returns)))["data"]
    assert data == {
        "at": "2024-01-02T00:00:00Z",
        "id": str(RICH.id),
        "colour": "red",
        "number": None,
        "theName": 1,
        "by_key": {"1": [2]},
    }


def test_msgpack_replies_keep_bytes() -> None:
    for returns in (Returns(Blob), Returns(Any)):
        frame = MSGPACK_FRAMER.reply(Reply("blob", 1, "ok", Blob(raw=b"\xff")), returns)
        assert ormsgpack.unpackb(bytes_of(frame))["data"] == {"raw": b"\xff", "name": ""}


EVENTS: list[tuple[Event, dict[str, Any]]] = [
    (Event("said", b'{"a":1}', "g.1"), {"type": "event", "event": "said", "group": "g.1", "data": {"a": 1}}),
    (Event('s"é', b"null"), {"type": "event", "event": 's"é', "data": None}),
    (Event("said", b'"x"', "g", 12), {"type": "event", "event": "said", "group": "g", "data": "x", "offset": 12}),
]


@pytest.mark.parametrize(("event", "content"), EVENTS)
def test_events_are_framed_alike_in_every_codec(event: Event, content: dict[str, Any]) -> None:
    own = ContentFramer(lambda content: text_frame(encode_json(content).decode()), ResponseSerializer)
    assert text_of(JSON_FRAMER.event(event)) == json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    assert ormsgpack.unpackb(bytes_of(MSGPACK_FRAMER.event(event))) == content
    assert json.loads(text_of(own.event(event))) == content


def test_a_serializer_may_shape_events() -> None:
    class Flat(ResponseSerializer):
        @classmethod
        def from_event(cls, event: Event, data: Any) -> dict[str, Any]:
            return {"kind": event.event, **data}

    framer = ContentFramer(lambda content: text_frame(encode_json(content).decode()), Flat)
    assert json.loads(text_of(framer.event(Event("said", b'{"a":1}', "g")))) == {"kind": "said", "a": 1}


@pytest.mark.parametrize(
    "notice",
    [
        Notice("gap", {"group": "g"}),
        Notice("closing", {"code": 1012, "reconnect": True, "after": 3.2}),
        Notice("error", {"error": {"code": "invalid_frame", "message": "é"}}),
    ],
)
def test_notices_are_framed_alike_in_every_codec(notice: Notice) -> None:
    content = {"type": notice.type, **notice.fields}
    own = ContentFramer(lambda content: text_frame(encode_json(content).decode()))
    assert json.loads(text_of(JSON_FRAMER.notice(notice))) == content
    assert ormsgpack.unpackb(bytes_of(MSGPACK_FRAMER.notice(notice))) == content
    assert json.loads(text_of(own.notice(notice))) == content


def test_all_actions_of_the_class_are_read() -> None:
    assert all(isinstance(found, Action) for found in ACTIONS.values())
    assert all(JSON.read(json.dumps({"action": name})).action == name for name in ACTIONS)
