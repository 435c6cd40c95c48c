"""Which language a client is answered in, and that it is."""

import json
import logging

import httpx
import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from fastapi import FastAPI

from fastapi_consumers import (
    ConsumerError,
    GroupConsumer,
    ImproperlyConfigured,
    InvalidData,
    JSONConsumer,
    NotFound,
    PermissionDenied,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.authentication import BaseAuthentication
from fastapi_consumers.localization import Localization
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.serializers import ResponseSerializer
from fastapi_consumers.testing import CallError, WebsocketCommunicator
from fastapi_consumers.translations import Translations
from fastapi_consumers.translations import gettext_lazy as _

GERMAN = "Diese Aktion gibt es nicht."


class User:
    def __init__(self, language=None):
        self.id, self.language = 7, language


class ByHeader(BaseAuthentication):
    """The header ``x-user`` is the language of a user."""

    async def authenticate(self, connection):
        language = connection.headers.get("x-user")
        return None if language is None else (User(language), None)


class OwnersOnly(BasePermission):
    message = "Only the owner may do this."

    def has_permission(self, consumer, action=None):
        return action is None


class Room(GroupConsumer):
    groups = ["room"]
    authentication_classes = [ByHeader]

    @action
    async def which(self) -> str:
        return self.connection.language

    @action
    async def switch(self, to: str) -> str:
        self.connection.language = to
        return self.connection.language

    @action
    async def become(self, language: str) -> None:
        self.user = User(language)

    @action
    async def count(self, to: int) -> None: ...

    @action(permission_classes=[OwnersOnly])
    async def close_room(self) -> None: ...

    @action
    async def find(self, name: str) -> None:
        raise NotFound(_("There is no room {name}.", name=name))


def header(language):
    return [(b"accept-language", language.encode())]


def catalog(folder, language, messages, domain="messages"):
    target = folder / language / "LC_MESSAGES"
    target.mkdir(parents=True)
    made = Catalog(locale="de")
    for message, translation in messages.items():
        made.add(message, translation)
    with (target / f"{domain}.mo").open("wb") as file:
        write_mo(file, made)
    return folder


def app_of(consumer=Room, **arguments):
    app = FastAPI()
    add_consumers(app, [path("/room", consumer)], **arguments)
    return app


async def error_of(client, name, data=None):
    with pytest.raises(CallError) as caught:
        await client.call(name, data)
    return caught.value


async def language_for(app, target="/room", **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    async with WebsocketCommunicator(app, target, headers=raw) as client:
        return await client.call("which")


# -- what clients are told ---------------------------------------------------------------------------------------------


async def test_two_clients_get_the_same_error_each_in_its_language():
    app = app_of()
    async with (
        WebsocketCommunicator(app, "/room", headers=header("de-AT,de;q=0.9,en;q=0.5")) as german,
        WebsocketCommunicator(app, "/room", headers=header("zh-TW,zh;q=0.9")) as chinese,
        WebsocketCommunicator(app, "/room") as nobody,
    ):
        told = [await error_of(client, "whoch") for client in (german, chinese, nobody)]
    assert [error.code for error in told] == ["action_not_found"] * 3
    assert [error.message for error in told] == [
        "Es gibt keine Aktion 'whoch'. Meinten Sie 'which'?",
        "沒有名為 'whoch' 的動作。您是否想用 'which'？",  # noqa: RUF001 -- Chinese punctuation
        "There is no action 'whoch'. Did you mean 'which'?",
    ]


async def test_values_in_a_message_are_translated_too():
    async with WebsocketCommunicator(app_of(), "/room", headers=header("fr")) as client:
        await client.send_json_to([1])
        error = (await client.receive_json_from())["error"]
    assert error == {
        "code": "invalid_frame",
        "message": "Un objet avec une action est attendu\u202f; trouvé\u00a0: une liste.",
    }


async def test_of_validation_errors_the_message_is_translated_and_what_pydantic_says_is_not():
    async with WebsocketCommunicator(app_of(), "/room", headers=header("ja")) as client:
        error = await error_of(client, "count", {"to": "x"})
    assert error.message == "データが無効です。"
    assert error.details[0]["type"] == "int_parsing"
    assert error.details[0]["message"].startswith("Input should be a valid integer")


async def test_what_we_say_in_details_is_translated():
    localization = Localization()
    error = InvalidData(details=[{"loc": [], "type": "many", "message": _("The data has {count} errors.", count=201)}])
    told = localization.translate(error, "de")
    assert told.details == [{"loc": [], "type": "many", "message": "Die Daten enthalten 201 Fehler."}]
    assert error.details[0]["message"] == "The data has 201 errors."


@pytest.mark.parametrize("subprotocol", ["fc.v1.json", "fc.v1.msgpack"])
async def test_in_both_encodings(subprotocol):
    pytest.importorskip("ormsgpack")
    client = WebsocketCommunicator(app_of(), "/room", subprotocols=[subprotocol], headers=header("es"))
    async with client:
        assert (await error_of(client, "close_room_")).message.startswith("No existe la acción 'close_room_'.")


async def test_in_envelopes_of_ones_own():
    class Envelope(ResponseSerializer):
        errors: list[dict]

    class Shaped(JSONConsumer):
        response_serializer_class = Envelope

    async with WebsocketCommunicator(app_of(Shaped), "/room", headers=header("de")) as client:
        await client.send_json_to({"action": "x", "request_id": 1})
        assert await client.receive_json_from() == {
            "errors": [{"code": "action_not_found", "message": "Es gibt keine Aktion 'x'."}]
        }


async def test_an_error_that_cannot_be_encoded_is_told_in_the_language_too():
    class Broken(JSONConsumer):
        @classmethod
        def encode_json(cls, content):
            raise RuntimeError("no")

    async with WebsocketCommunicator(app_of(Broken), "/room", headers=header("de")) as client:
        await client.send_json_to({"action": "x", "request_id": 1})
        assert (await client.receive_json_from())["error"]["message"] == "Ein interner Fehler ist aufgetreten."


@pytest.mark.parametrize("accept_refused", [False, True])
async def test_a_refused_handshake_says_why_in_the_language(accept_refused):
    class Closed(GroupConsumer):
        permission_classes = [IsAuthenticated]

    app = app_of(Closed, accept_refused=accept_refused)
    client = WebsocketCommunicator(app, "/room", headers=header("zh-CN"), denial_response=True)
    await client.connect()
    told = await client.receive_json_from() if accept_refused else json.loads(client.denial.body)
    assert told["error"] == {"code": "not_authenticated", "message": "需要身份验证。"}
    if accept_refused:
        await client.disconnect()


async def test_logs_stay_english(caplog):
    class Small(GroupConsumer):
        def get_groups(self):
            return [""]

    client = WebsocketCommunicator(app_of(Small), "/room", headers=header("de"), denial_response=True)
    with caplog.at_level(logging.WARNING):
        await client.connect()
    assert json.loads(client.denial.body)["error"]["message"].endswith("gefunden: ein leerer Name.")
    assert [message.partition("Small ")[2] for message in caplog.messages] == [
        "cannot join a group: A group's name is text of 1 to 255 printable characters; found an empty name."
    ]


async def test_http_endpoints_answer_in_the_language_of_the_request():
    app = app_of()

    @app.get("/gone")
    async def gone() -> None:
        raise NotFound

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/gone", headers={"accept-language": "de-CH"})
        assert response.json() == {"error": {"code": "not_found", "message": "Nicht gefunden."}}
        assert (response.headers["content-language"], response.headers["vary"]) == ("de", "accept-language")
        response = await client.get("/gone?lang=ja", headers={"accept-language": "de-CH"})
        assert response.json()["error"]["message"] == "見つかりません。"
        response = await client.get("/gone")
        assert (response.json()["error"]["message"], response.headers["content-language"]) == ("Not found.", "en")


def test_an_error_is_the_very_same_where_nothing_is_translated():
    localization, error = Localization(), NotFound()
    assert localization.translate(error, "en") is error
    unknown = NotFound("There is no tea.")
    assert localization.translate(unknown, "de") is unknown


def test_an_error_is_copied_without_its_init_and_stays_what_it_was():
    class Demanding(ConsumerError):
        def __init__(self, one, two):
            super().__init__("demanding", "Not found.", close=True, details={"one": one})
            self.two = two

    error = Demanding(1, 2)
    told = Localization().translate(error, "de")
    assert (told.message, error.message) == ("Nicht gefunden.", "Not found.")
    assert (type(told), told.two, told.close, told.details, told.args) == (Demanding, 2, True, {"one": 1}, error.args)


@pytest.mark.parametrize("message", ["", 7, {"a": 1}])
def test_messages_that_are_no_text_are_left_alone(message):
    error = ConsumerError("odd", message)
    assert Localization().translate(error, "de").body() == {"code": "odd", "message": message}


# -- which language ----------------------------------------------------------------------------------------------------


ALL = {"language_query_key": "lang", "language_cookie_key": "lang"}


async def test_each_source_decides_and_the_next_only_without_it():
    app = app_of(language="es", **ALL)
    sources = {"cookie": "lang=fr", "x_user": "ja", "accept_language": "zh-TW"}
    assert await language_for(app, "/room?lang=de", **sources) == "de"
    assert await language_for(app, "/room?lang=", **sources) == "fr"
    del sources["cookie"]
    assert await language_for(app, "/room?lang=xx", **sources) == "ja"
    del sources["x_user"]
    assert await language_for(app, **sources) == "zh-Hant"
    assert await language_for(app) == "es"


async def test_the_query_counts_unless_it_is_switched_off_and_the_cookie_where_it_is_named():
    assert await language_for(app_of(), "/room?lang=de", cookie="lang=fr") == "de"
    assert await language_for(app_of(), "/room", cookie="lang=fr") == "en"
    assert await language_for(app_of(language_query_key=None), "/room?lang=de", cookie="lang=fr") == "en"
    assert await language_for(app_of(language_query_key="hl"), "/room?hl=de_AT&lang=fr") == "de"


@pytest.mark.parametrize(
    ("accept_language", "expected"),
    [
        ("pl, de;q=0.5", "de"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("zh", "zh-Hans"),
        ("zh-HK", "zh-Hant"),
        ("en-GB, de", "en"),
        ("pl, *;q=0.5, de;q=0.1", "es"),
        ("pl", "es"),
        (";;;,,,q=1", "es"),
        ("de," * 3000, "de"),
        ("x" * 60_000, "es"),
    ],
)
async def test_accept_language(accept_language, expected):
    assert await language_for(app_of(language="es"), accept_language=accept_language) == expected


async def test_several_headers_count_as_one():
    headers = [*header("pl"), *header("de")]
    async with WebsocketCommunicator(app_of(), "/room", headers=headers) as client:
        assert await client.call("which") == "de"


@pytest.mark.parametrize("user", [{"language": "de"}, User("de_AT")])
def test_the_language_of_a_user(user):
    assert Localization().language_of({"type": "http", "headers": []}, user) == "de"


@pytest.mark.parametrize("user", [None, "de", {"language": 7}, User(object()), User("")])
def test_a_user_that_names_no_language(user):
    assert Localization().language_of({"type": "http", "headers": []}, user) == "en"


def test_a_user_whose_language_cannot_be_read_is_logged_and_passed_over(caplog):
    class Lazy:
        @property
        def language(self):
            raise RuntimeError("detached")

    scope = {"type": "http", "headers": header("de")}
    assert Localization().language_of(scope, Lazy()) == "de"
    assert "Lazy could not be read" in caplog.text


@pytest.mark.parametrize("own", ["python", "c", "go", "*", "de,en", "", "x" * 5000, "%00", "%ff", "de%2Fen"])
async def test_a_parameter_of_ones_own_that_has_the_same_name_is_passed_over(own):
    app = app_of(language="es")
    assert await language_for(app, f"/room?lang={own}", accept_language="ja") == "ja"
    assert await language_for(app, f"/room?lang={own}") == "es"


async def test_an_endpoint_may_have_such_a_parameter_itself():
    app = app_of()

    @app.get("/run")
    async def run(lang: str) -> str:
        if lang != "python":
            raise NotFound
        return lang

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        german = {"accept-language": "de"}
        assert (await client.get("/run?lang=python", headers=german)).json() == "python"
        answers = [await client.get(f"/run?lang={lang}", headers=german) for lang in ("cobol", "fr")]
    assert [answer.headers["content-language"] for answer in answers] == ["de", "fr"]


async def test_get_language_decides_before_all_else():
    class Own(Room):
        def get_language(self):
            return self.path_params.get("lang", "fr")

    assert await language_for(app_of(Own, **ALL), "/room?lang=de", accept_language="ja") == "fr"


@pytest.mark.parametrize("bad", ["raises", "async", "unknown"])
async def test_a_get_language_that_fails_keeps_no_error_from_the_client(bad, caplog):
    class Raises(Room):
        def get_language(self):
            raise LookupError

    class Async(Room):
        async def get_language(self):
            return "fr"

    class Unknown(Room):
        def get_language(self):
            return "tlh"

    consumer = {"raises": Raises, "async": Async, "unknown": Unknown}[bad]
    async with WebsocketCommunicator(app_of(consumer), "/room", headers=header("de")) as client:
        assert (await error_of(client, "nope")).message == "Es gibt keine Aktion 'nope'."
    assert ("get_language() failed" in caplog.text) == (bad != "unknown")


async def test_it_follows_the_user_and_can_be_set():
    async with WebsocketCommunicator(app_of(), "/room", headers=header("ja")) as client:
        assert await client.call("which") == "ja"
        await client.call("become", {"language": "fr"})
        assert await client.call("which") == "fr"
        assert await client.call("switch", {"to": "zh_TW"}) == "zh-Hant"
        await client.call("become", {"language": "de"})
        assert await client.call("which") == "zh-Hant"


def test_setting_a_language_that_there_is_not_says_which_there_are():
    class Connection:
        from fastapi_consumers.localization import ClientLanguage

        language = ClientLanguage()

        class consumers:
            class defaults:
                localization = Localization()

    with pytest.raises(ValueError, match="no language 'tlh'; expected one of en, de"):
        Connection().language = "tlh"


async def test_only_the_languages_that_are_offered():
    app = app_of(languages=["en", "de"], language="de")
    assert await language_for(app, accept_language="fr, en;q=0.5") == "en"
    assert await language_for(app, accept_language="fr") == "de"


# -- catalogs of users -------------------------------------------------------------------------------------------------


async def test_a_users_catalog_translates_permissions_and_texts_and_overrides_ours(tmp_path):
    messages = {
        "Only the owner may do this.": "Das darf nur der Eigentümer.",
        "There is no room {name}.": "Es gibt keinen Raum {name}.",
        "The data is not valid.": "So nicht.",
    }
    app = app_of(translations=[catalog(tmp_path, "de", messages)])
    async with (
        WebsocketCommunicator(app, "/room", headers=header("de")) as german,
        WebsocketCommunicator(app, "/room", headers=header("fr")) as french,
    ):
        assert (await error_of(german, "close_room")).message == "Das darf nur der Eigentümer."
        assert (await error_of(german, "find", {"name": "{x}"})).message == "Es gibt keinen Raum {x}."
        assert (await error_of(german, "count", {})).message == "So nicht."
        assert (await error_of(german, "nope")).message == "Es gibt keine Aktion 'nope'."
        assert (await error_of(french, "close_room")).message == "Only the owner may do this."
        assert (await error_of(french, "find", {"name": "a"})).message == "There is no room a."


async def test_a_users_catalog_adds_a_language_and_can_be_the_default(tmp_path):
    catalog(tmp_path / "a", "pt_BR", {"Not found.": "Não encontrado."}, "shop")
    catalog(tmp_path / "b", "en", {"Not found.": "Nope."})
    app = app_of(translations=[Translations(tmp_path / "a", domain="shop"), tmp_path / "b"], language="pt-br")
    assert await language_for(app, accept_language="pt") == "pt-BR"
    assert await language_for(app) == "pt-BR"
    localization = app.state.consumers.defaults.localization
    assert localization.translate(NotFound(), "pt-BR").message == "Não encontrado."
    assert localization.translate(NotFound(), "en").message == "Nope."
    assert localization.translate(PermissionDenied(), "pt-BR").message == PermissionDenied.default_message


def codes(**arguments):
    app = FastAPI()
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(app, [], **arguments)
    assert not hasattr(app.state, "consumers")
    return [problem.code for problem in caught.value.problems]


def test_a_broken_catalog_is_a_mistake_at_startup(tmp_path):
    folder = catalog(tmp_path, "de", {"Not found.": "Nein."})
    (folder / "de" / "LC_MESSAGES" / "messages.mo").write_bytes(b"\xde\x12\x04\x95broken")
    assert codes(translations=[folder]) == ["bad-translations"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"language": "tlh"}, ["bad-language"]),
        ({"language": 7}, ["bad-language"]),
        ({"language": "fr", "languages": ["en", "de"]}, ["bad-language"]),
        ({"languages": ["en", "tlh"]}, ["bad-languages"]),
        ({"languages": "en"}, ["bad-languages"]),
        ({"languages": []}, ["bad-languages"]),
        ({"translations": "locale"}, ["bad-translations"]),
        ({"translations": Translations("locale")}, ["bad-translations"]),
        ({"translations": ["no-such-folder", 7]}, ["bad-translations"] * 2),
        ({"language_query_key": ""}, ["bad-language-query-key"]),
        ({"language_cookie_key": 7}, ["bad-language-cookie-key"]),
    ],
)
def test_mistakes(arguments, expected):
    assert codes(**arguments) == expected
