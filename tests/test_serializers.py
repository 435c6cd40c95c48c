"""Envelopes of one's own: flat messages in a few lines."""

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import PydanticUndefined

from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.exceptions import InvalidData, Throttled
from fastapi_consumers.messages import Reply
from fastapi_consumers.serializers import (
    ActionRequest,
    ActionResponse,
    FlatRequest,
    RequestSerializer,
    ResponseSerializer,
    data_of,
)
from fastapi_consumers.testing import WebsocketCommunicator


class Message(BaseModel):
    user: str
    message: str


class ChatResponse(ResponseSerializer):
    action: str
    user: str | None = None
    message: str | None = None
    status: str
    errors: list[dict[str, Any]]
    request_id: int | None


class Chat(GroupConsumer):
    groups = ["chat"]
    request_serializer_class = FlatRequest
    response_serializer_class = ChatResponse

    @action
    async def message(self, data: Message) -> Message:
        return data

    @action
    async def by_field(self, user: str) -> dict[str, str]:
        return {"user": user}


async def test_flat_messages_take_a_few_lines() -> None:
    from fastapi import FastAPI

    app = FastAPI()
    add_consumers(app, [path("/chat", Chat)])
    async with WebsocketCommunicator(app, "/chat") as ann:
        await ann.send_json_to({"action": "message", "user": "ann", "message": "hi", "request_id": 1})
        assert await ann.receive_json_from() == {
            "action": "message",
            "user": "ann",
            "message": "hi",
            "status": "ok",
            "errors": [],
            "request_id": 1,
        }
        await ann.send_json_to({"action": "by_field", "user": "bob", "request_id": 2})
        assert (await ann.receive_json_from())["user"] == "bob"
        await ann.send_json_to({"action": "message", "user": "ann", "request_id": 3})
        answer = await ann.receive_json_from()
        assert (answer["status"], answer["user"], answer["request_id"]) == ("error", None, 3)
        (error,) = answer["errors"]
        assert error["code"] == "invalid_data"
        assert [detail["loc"] for detail in error["details"]] == [["message"]]
        await ann.send_json_to({"user": "ann", "request_id": 4})
        answer = await ann.receive_json_from()
        assert (answer["action"], answer["status"], answer["request_id"]) == (None, "error", 4)


def test_a_flat_request_has_its_payload_beside_the_action() -> None:
    request = FlatRequest.model_validate({"action": "say", "request_id": 1, "text": "hi", "data": 3})
    assert request.get_data() == {"text": "hi", "data": 3}


def test_declared_fields_are_the_payload() -> None:
    class Request(RequestSerializer):
        request_id: int | None = Field(None, alias="id")
        text: str = "none"

    request = Request.model_validate({"action": "say", "id": 7, "more": 1})
    assert (request.request_id, request.get_data()) == (7, {"text": "none"})


def test_a_field_named_data_is_the_payload() -> None:
    assert ActionRequest.model_validate({"action": "say", "data": {"a": 1}}).get_data() == {"a": 1}
    assert ActionRequest.model_validate({"action": "say", "data": None}).get_data() is None
    assert ActionRequest.model_validate({"action": "say"}).get_data() is PydanticUndefined


def test_a_default_of_data_is_sent_data() -> None:
    class Request(RequestSerializer):
        data: dict[str, int] = {"a": 1}

    assert Request.model_validate({"action": "say"}).get_data() == {"a": 1}


def test_the_same_holds_for_any_model() -> None:
    class Plain(BaseModel):
        action: str
        text: str

    assert data_of(Plain(action="say", text="hi")) == {"text": "hi"}


OK = Reply("say", 1, "ok", {"text": "hi", "status": "hacked", "type": "x", "request_id": 9})
FAILED = Reply("say", 1, "error", error=InvalidData(details=[]))


def test_the_native_shape() -> None:
    answer = ActionResponse.from_reply(OK)
    assert isinstance(answer, ActionResponse)
    assert answer.model_dump() == {
        "type": "reply",
        "action": "say",
        "request_id": 1,
        "status": "ok",
        "data": OK.data,
        "error": None,
    }


def test_data_cannot_pretend_to_be_the_envelope() -> None:
    class Flat(ResponseSerializer):
        type: str
        request_id: int
        status: str
        text: str
        errors: list[Any]

    assert Flat.from_reply(OK) == Flat(type="reply", request_id=1, status="ok", text="hi", errors=[])


def test_response_fields_may_have_aliases() -> None:
    class Answer(ResponseSerializer):
        request_id: int | None = Field(alias="requestId")
        said: str | None = Field(None, serialization_alias="theText", validation_alias="text")

    answer = Answer.from_reply(OK)
    assert isinstance(answer, Answer)
    assert answer.model_dump(by_alias=True) == {"requestId": 1, "theText": "hi"}


def test_an_error_is_told_though_only_success_could_fill_the_fields() -> None:
    class Answer(ResponseSerializer):
        request_id: int = Field(alias="requestId")
        text: str
        status: str
        error: dict[str, Any]

    assert Answer.from_reply(FAILED) == {
        "requestId": 1,
        "text": None,
        "status": "error",
        "error": {"code": "invalid_data", "message": "The data is not valid.", "details": []},
    }
    with pytest.raises(ValidationError):
        Answer.from_reply(Reply("say", 1, "ok", {}))


def test_errors_are_a_list_of_one() -> None:
    class Answer(ResponseSerializer):
        errors: list[dict[str, Any]]

    answer = Answer.from_reply(Reply(None, 1, "error", error=Throttled(1.23456)))
    error = {"code": "throttled", "message": "Too many requests.", "retryable": True, "retry_after": 1.235}
    assert answer == Answer(errors=[error])


def test_events_have_the_native_shape_unless_said_otherwise() -> None:
    from fastapi_consumers.messages import Event

    assert ResponseSerializer.from_event(Event("said", b"1", "g"), 1) is None
