"""Frames that no honest client would send, and what has to come back for each. All of it is drawn from a seed."""

import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ormsgpack

from tests.server.client import BINARY, CLOSE, CONT, PING, TEXT, frame

Answer = dict[str, Any]


class Shot(NamedTuple):
    """What goes out, byte by byte, and whether this answer may be the one to it."""

    kind: str
    data: bytes
    fits: Callable[[Answer], bool]


class Ending(NamedTuple):
    """What goes out, and with what codes the server may close for it. Uvicorn closes for what breaks RFC 6455."""

    kind: str
    data: bytes
    codes: frozenset[int]


def is_reply(request_id: Any, status: str | None = None, code: str | None = None) -> Callable[[Answer], bool]:
    return lambda answer: (
        answer["type"] == "reply"
        and answer["request_id"] == request_id
        and type(answer["request_id"]) is type(request_id)
        and status in (None, answer["status"])
        and (code is None or answer.get("error", {}).get("code") == code)
    )


def is_invalid(answer: Answer) -> bool:
    """No request at all, or none that names itself."""
    return bool(answer["type"] == "error" and answer["error"]["code"] == "invalid_frame")


def is_unnamed(answer: Answer) -> bool:
    return is_invalid(answer) or is_reply(None)(answer)


def is_refused(request_id: Any) -> Callable[[Answer], bool]:
    """Refused, with or without its id: what breaks JSON itself cannot be looked into for one."""
    return lambda answer: is_invalid(answer) or is_reply(request_id, "error")(answer)


def is_anything(answer: Answer) -> bool:
    return answer["type"] in ("reply", "error")


#: JSON that is no object, or not JSON.
NO_OBJECTS = (
    "", " ", "null", "true", "false", "0", "-0", "1", "1.5", "-", "+1", "01", ".5", "1e999", "-1e999", "1e-999",
    "9" * 5000,
    '"text"', "[]", "[1]", "[[]]", "[{}]", '[{"action":"echo"}]', "{", "}", "[", "]", "{]", "[}", '"', "'", "NaN",
    "Infinity", "-Infinity", "undefined", "{'action':'echo'}", "{action:1}", '{"action"}', '{"action":}', "\ufeff{}",
    "\x00",
    "{}\x00", "/*x*/{}", "{} {}", "{},", '{"a":1,}', '"\\ud800"', '"\\u"', '"\\x41"', '"\n"', "tru", "nul", "\u2028",
    "%s%n",
    "<xml/>", "GET / HTTP/1.1", "2[]", "42", "--", "1e", "0x10", "1_000", '{"a":1}{"b":2}', "{\"action\":\"echo\"",
)  # fmt: skip

#: No names of actions.
WRONG_ACTIONS: tuple[Any, ...] = (
    None, 0, 1, 1.5, True, [], {}, ["echo"], {"echo": 1}, "", " ", "Echo", "ECHO", "echo ", "échó",
    "x" * 5000, "__init__",
    "__class__", "__dict__", "close", "send", "receive", "receive_json", "disconnect", "connect", "accept", "broadcast",
    "join", "leave", "_join", "_meta", "on_join", "consumer", "connection", "channel_layer", "self", "echo.__call__",
    "a.b",
    "../echo", "echo\x00", "\u202e", "🎉" * 60, "history", "presence", "authenticate",
)  # fmt: skip

WRONG_IDS: tuple[Any, ...] = (
    1.5, True, False, [], {}, [1], {"id": 1}, 2**63, -(2**63) - 1, 2**64, 10**400, "x" * 256, "é" * 300, 1e300, -0.5,
)  # fmt: skip

#: Nothing that ``echo`` takes, which is ``{"text": str}``.
WRONG_DATA: tuple[Any, ...] = (
    None, 0, 1.5, True, "text",
    [], [1], ["text"], {}, {"text": None}, {"text": 1}, {"text": []}, {"text": {}}, {"Text": "x"},
    {"": "x"}, {"self": 1}, {"consumer": 1}, {"data": {"text": "x"}}, {"text": True}, {"text": 1.5}, {"__class__": "x"},
    {"*": 1, "**": 2},
)  # fmt: skip

#: Keys beside the three that count are nobody's arguments.
STRAY_KEYS = (
    "self",
    "cls",
    "consumer",
    "args",
    "kwargs",
    "__class__",
    "type",
    "group",
    "status",
    "error",
    "",
    "text",
    "x\x00",
)

#: Raw JSON values that a parser may trip over.
RAW_VALUES = (
    "1e999", "-1e999", "1e-999", "9" * 5000, "-" + "9" * 400, "0." + "1" * 3000, "NaN", "Infinity", "-Infinity",
    '"\\ud800"',
    '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', "1E400", "1e+400", "123e9999", "0e99999", "-0", "-0.0", "1.0",
    '"' + "x" * 3000 + '"', "[" * 150 + "]" * 150, "[" * 3000 + "]" * 3000, '{"a":' * 2500 + "1" + "}" * 2500,
    "[" * 3000,
    '{"a":' * 190 + "1" + "}" * 190, '{"text":"a","text":"b"}', "[" + "0," * 3000 + "0]", "tru", "",
)  # fmt: skip


class Shooter:
    """Draws shots for one connection. Requests that name themselves have ids that count up."""

    def __init__(self, seed: int, *, msgpack: bool = False) -> None:
        self.random = random.Random(seed)
        self.msgpack = msgpack
        self._ids = iter(range(1, 10**9))
        self._kinds: list[Callable[[], Shot]] = [
            self.valid, self.valid, self.wrong_action, self.wrong_id, self.wrong_data, self.stray_keys, self.cancel,
            self.not_finite, self.no_envelope,
        ]  # fmt: skip
        if msgpack:
            self._kinds += [self.random_bytes, self.mutated_bytes, self.odd_msgpack]
        else:
            self._kinds += [
                self.no_object, self.random_text, self.mutated, self.raw_value, self.raw_id, self.duplicate_keys,
                self.fragments, self.nested, self.escaped,
            ]  # fmt: skip

    def next_id(self) -> int | str:
        number = next(self._ids)
        return number if number % 3 else f"id-{number}-é"

    def shots(self, count: int) -> Iterator[Shot]:
        """So many, never so many bad ones in a row that the connection is closed for them."""
        for number in range(count):
            yield self.valid() if number % 20 == 19 else self.random.choice(self._kinds)()

    # -- pieces --------------------------------------------------------------------------------------------------------

    def text(self, length: int = 40) -> str:
        alphabet = self.random.choice([string.printable, "aé€😀\x00\x7f\u2028", '"\\{}[]:,', "cancel 0123456789"])
        return "".join(self.random.choices(alphabet, k=self.random.randrange(length)))

    def encoded(self, content: Any) -> bytes:
        if self.msgpack:
            return frame(BINARY, ormsgpack.packb(content, option=ormsgpack.OPT_NON_STR_KEYS))
        return frame(
            TEXT, json.dumps(content, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")
        )

    def request(self, **changes: Any) -> tuple[int | str, dict[str, Any]]:
        request_id = self.next_id()
        return request_id, {"action": "echo", "request_id": request_id, "data": {"text": self.text()}, **changes}

    # -- requests ------------------------------------------------------------------------------------------------------

    def valid(self) -> Shot:
        request_id, content = self.request()
        text = content["data"]["text"]
        expected = is_reply(request_id, "ok")
        return Shot("valid", self.encoded(content), lambda answer: expected(answer) and answer["data"] == text)

    def wrong_action(self) -> Shot:
        request_id, content = self.request(action=self.random.choice(WRONG_ACTIONS))
        return Shot("wrong action", self.encoded(content), is_reply(request_id, "error"))

    def wrong_id(self) -> Shot:
        usable = [wrong for wrong in WRONG_IDS if not self.msgpack or not isinstance(wrong, int) or wrong < 2**64]
        usable = [wrong for wrong in usable if not self.msgpack or not isinstance(wrong, int) or wrong >= -(2**63)]
        _, content = self.request(request_id=self.random.choice(usable))
        return Shot("wrong id", self.encoded(content), is_invalid)

    def wrong_data(self) -> Shot:
        request_id, content = self.request(data=self.random.choice(WRONG_DATA))
        return Shot("wrong data", self.encoded(content), is_reply(request_id, "error", "invalid_data"))

    def no_envelope(self) -> Shot:
        content = {self.text(8): self.text(8) for _ in range(self.random.randrange(5))}
        content.pop("action", None)
        content.pop("request_id", None)
        return Shot("no envelope", self.encoded(content), is_invalid)

    def stray_keys(self) -> Shot:
        request_id, content = self.request()
        content |= {key: self.random.choice([1, None, [1], {"a": 1}]) for key in self.random.sample(STRAY_KEYS, 4)}
        content["data"] |= dict.fromkeys(self.random.sample(STRAY_KEYS[:-2], 3), 1)
        return Shot("stray keys", self.encoded(content), is_reply(request_id, "ok"))

    def cancel(self) -> Shot:
        request_id = self.next_id()
        data = self.random.choice([{"request_id": 10**12}, {"request_id": "none"}, {}, None, [], {"request_id": []}])
        content = {"action": "cancel", "request_id": request_id, "data": data}
        return Shot("cancel", self.encoded(content), is_reply(request_id, "error"))

    def not_finite(self) -> Shot:
        value = self.random.choice([float("nan"), float("inf"), float("-inf")])
        action, data = self.random.choice([("move", {"x": value}), ("anything", [1, {"a": value}])])
        request_id, content = self.request(action=action, data=data)
        return Shot("not finite", self.encoded(content), is_refused(request_id))

    # -- JSON ----------------------------------------------------------------------------------------------------------

    def raw(self, kind: str, text: str, fits: Callable[[Answer], bool]) -> Shot:
        return Shot(kind, frame(TEXT, text.encode()), fits)

    def no_object(self) -> Shot:
        return self.raw("no object", self.random.choice(NO_OBJECTS), is_invalid)

    def random_text(self) -> Shot:
        return self.raw("random text", self.text(300), is_invalid)

    def mutated(self) -> Shot:
        _, content = self.request()
        text = list(json.dumps(content))
        for _ in range(self.random.randrange(1, 4)):
            place = self.random.randrange(max(1, len(text) - 1))
            match self.random.randrange(4):
                case 0:
                    text[place] = ""
                case 1:
                    text.insert(place, self.random.choice(string.printable))
                case 2:
                    text[place] = self.random.choice('"\\{}[]:,0aé\x00')
                case 3:
                    text[place:] = "  "
        return self.raw("mutated", "".join(text), is_anything)

    def raw_value(self) -> Shot:
        request_id, action = self.next_id(), self.random.choice(["echo", "move", "anything"])
        value = self.random.choice(RAW_VALUES)
        wrapped = self.random.choice([value, f'{{"text":{value}}}', f'{{"x":{value}}}', f"[{value}]"])
        text = f'{{"action":"{action}","request_id":{json.dumps(request_id)},"data":{wrapped}}}'
        expected = is_reply(request_id)
        return self.raw("raw value", text, lambda answer: is_invalid(answer) or expected(answer))

    def raw_id(self) -> Shot:
        value = self.random.choice(RAW_VALUES)
        return self.raw("raw id", f'{{"action":"echo","request_id":{value},"data":{{"text":"x"}}}}', is_anything)

    def duplicate_keys(self) -> Shot:
        first, second = self.next_id(), self.next_id()
        ids = f'"request_id":{json.dumps(first)},"request_id":{json.dumps(second)}'
        actions = self.random.choice(
            ['"action":"echo"', '"action":"nothing","action":"echo"', '"action":1,"action":"echo"']
        )
        text = f'{{{actions},{ids},"data":1,"data":{{"text":"a","text":"b"}}}}'
        return self.raw("duplicate keys", text, lambda answer: is_reply(second)(answer) or is_refused(first)(answer))

    def fragments(self) -> Shot:
        request_id, content = self.request()
        payload = json.dumps(content, ensure_ascii=False).encode()
        size = self.random.choice([1, 2, 7, 30])
        parts = [payload[start : start + size] for start in range(0, len(payload), size)]
        data = b""
        for number, part in enumerate(parts):
            data += frame(CONT if number else TEXT, part, fin=number == len(parts) - 1)
            if self.random.random() < 0.2:
                data += frame(PING, b"between")
            if self.random.random() < 0.1 and number < len(parts) - 1:
                data += frame(CONT, b"", fin=False)
        return Shot("fragments", data, is_reply(request_id, "ok"))

    def nested(self) -> Shot:
        request_id, depth = self.next_id(), self.random.choice([10, 100, 190, 199, 200, 201, 500, 2500])
        opening, closing = self.random.choice([("[", "]"), ('{"a":', "}")])
        value = opening * depth + "1" + closing * depth
        text = f'{{"action":"anything","request_id":{json.dumps(request_id)},"data":{value}}}'
        expected = is_reply(request_id, "ok" if depth < 150 else None)
        return self.raw(
            "nested", text, expected if depth < 150 else lambda answer: is_invalid(answer) or expected(answer)
        )

    def escaped(self) -> Shot:
        """Half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
        request_id = self.next_id()
        key = self.random.choice(["action", "data", "request_id", "other"])
        half = '"\\ud800x"'
        fields = {"action": '"echo"', "request_id": json.dumps(request_id), "data": '{"text":"x"}'}
        fields[key] = half if key != "data" else f'{{"text":{half}}}'
        text = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
        return self.raw("half a pair", text, is_anything)

    # -- MessagePack ---------------------------------------------------------------------------------------------------

    def random_bytes(self) -> Shot:
        # Never a map, which might happen to be a request.
        data = bytes([self.random.choice([0xC1, 0xC4, 0x90, 0xDC, 0xFF, 0x00, 0xC0, 0xCA, 0xD9])])
        return Shot("random bytes", frame(BINARY, data + self.random.randbytes(self.random.randrange(40))), is_invalid)

    def mutated_bytes(self) -> Shot:
        _, content = self.request()
        data = bytearray(ormsgpack.packb(content))
        for _ in range(self.random.randrange(1, 4)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return Shot("mutated bytes", frame(BINARY, bytes(data)), is_anything)

    def odd_msgpack(self) -> Shot:
        data = self.random.choice(
            [
                b"",
                b"\x91" * 5000,
                b"\x91" * 300 + b"\x01",
                b"\x81\xa1a" * 300 + b"\x01",
                b"\xdf\xff\xff\xff\xff",
                b"\xdd\xff\xff\xff\xff\x01",
                b"\xc6\xff\xff\xff\xffx",
                b"\xc7\x01\x05\x00",
                b"\xd4\xff\x00",
                b"\x81\x01\x02",
                b"\x81\xa1\xff\x02",
                b"\x81\x90\x02",
                b"\xcb\x7f\xf8" + bytes(6),
            ]
        )
        return Shot("odd MessagePack", frame(BINARY, data), is_invalid)


def endings(generator: random.Random, max_size: int, *, msgpack: bool) -> list[Ending]:
    """What costs the connection, and nothing but it."""
    payload = generator.randbytes(20)
    protocol_error = frozenset({1002})
    own = TEXT if not msgpack else BINARY
    other = BINARY if not msgpack else TEXT
    return [
        Ending("wrong kind of frame", frame(other, b'{"action":"echo"}'), frozenset({1003})),
        Ending("empty frame of the wrong kind", frame(other, b""), frozenset({1003})),
        Ending("too big", frame(own, b"x" * (max_size + 1)), frozenset({1009})),
        Ending("too big in fragments", frame(own, b"x" * max_size, fin=False) + frame(CONT, b"xx"), frozenset({1009})),
        Ending("too big for the server", frame(own, b"x" * (1024 * 1024 + 1)), frozenset({1009})),
        Ending("not UTF-8", frame(TEXT, b'{"action":"\xff"}'), frozenset({1007})),
        Ending("raw surrogate", frame(TEXT, b'"\xed\xa0\x80"'), frozenset({1007})),
        Ending("cut UTF-8", frame(TEXT, "é".encode()[:1]), frozenset({1007})),
        Ending("reserved bit", frame(own, payload, rsv=2), protocol_error),
        Ending("compressed without being asked", frame(own, payload, rsv=4), protocol_error),
        Ending("unknown opcode", frame(generator.choice([3, 4, 5, 6, 7, 11, 15]), payload), protocol_error),
        Ending("not masked", frame(own, payload, masked=False), protocol_error),
        Ending("large ping", frame(PING, b"x" * 126), protocol_error),
        Ending("ping in fragments", frame(PING, b"x", fin=False), protocol_error),
        Ending("continues nothing", frame(CONT, payload), protocol_error),
        Ending("begins anew within", frame(own, b"x", fin=False) + frame(own, b"y"), protocol_error),
        Ending("close of one byte", frame(CLOSE, b"\x03"), protocol_error),
        Ending("close with 999", frame(CLOSE, (999).to_bytes(2)), protocol_error),
        Ending("close with 1005", frame(CLOSE, (1005).to_bytes(2)), protocol_error),
        Ending("close with bad reason", frame(CLOSE, (1000).to_bytes(2) + b"\xff"), frozenset({1002, 1007})),
        Ending("close without code", frame(CLOSE), frozenset({1005})),
        Ending("close with 4999", frame(CLOSE, (4999).to_bytes(2)), frozenset({4999})),
        Ending("close and more", frame(CLOSE, (1000).to_bytes(2)) + frame(own, b"x") * 5, frozenset({1000})),
    ]
