"""The catalogs: that ours are complete and right, and that wrong ones of users are noticed."""

import ast
import io
import re
import struct
from importlib.resources import files
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

import fastapi_consumers
from fastapi_consumers import exceptions
from fastapi_consumers.exceptions import ConsumerError
from fastapi_consumers.translations import (
    BUNDLED,
    DOMAIN,
    Translations,
    bundled_catalog,
    merged,
    placeholders_fit,
    user_catalogs,
)

PACKAGE = Path(fastapi_consumers.__file__).parent
LOCALE = files(fastapi_consumers) / "locale"
#: What reads the same in English: (language, message).
SAME: set[tuple[str, str]] = set()


def po_of(folder):
    return read_po(io.BytesIO((LOCALE / folder / "LC_MESSAGES" / f"{DOMAIN}.po").read_bytes()), locale=folder)


def mo_of(folder):
    return read_mo(io.BytesIO((LOCALE / folder / "LC_MESSAGES" / f"{DOMAIN}.mo").read_bytes()))


def entries(catalog):
    return {message.id: message.string for message in catalog if message.id}


def extracted():
    return {message for _, _, message, _, _ in extract_from_dir(PACKAGE, keywords={"_": None})}


@pytest.fixture(scope="module")
def template():
    return entries(read_po(io.BytesIO((LOCALE / f"{DOMAIN}.pot").read_bytes())))


@pytest.fixture(params=sorted(BUNDLED.values()))
def folder(request):
    return request.param


# -- ours --------------------------------------------------------------------------------------------------------------


def test_the_template_has_every_message_of_the_code_and_no_other(template):
    """If not: ``tox -e messages``, then translate what is new."""
    assert len(template) > 50
    assert extracted() == set(template)


#: Errors of FastAPI's and Starlette's whose second argument clients see, and the names of that.
HTTP_ERRORS = {"HTTPException", "WebSocketException"}
TEXTS = {"detail", "reason"}


def texts_for_clients():
    """Where a text is given to an error, or is an error's default, without being marked for translation."""
    errors = {name for name, value in vars(exceptions).items() if isinstance(value, type)} - {"ImproperlyConfigured"}
    for path in PACKAGE.rglob("*.py"):
        if "testing" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            texts = []
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) in HTTP_ERRORS:
                texts = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg in TEXTS)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors:
                kind = getattr(exceptions, node.func.id)
                if issubclass(kind, ConsumerError):
                    texts = node.args[1:] if kind is ConsumerError else node.args
                    texts = [*texts, *(keyword.value for keyword in node.keywords if keyword.arg == "message")]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(getattr(target, "id", None) in ("default_message", "message") for target in targets):
                    texts = [node.value]
            for text in texts:
                if isinstance(text, ast.JoinedStr | ast.BinOp) or (
                    isinstance(text, ast.Constant) and isinstance(text.value, str)
                ):
                    yield f"{path.relative_to(PACKAGE)}:{text.lineno}: {ast.unparse(text)}"


def test_no_text_for_clients_is_left_unmarked():
    assert list(texts_for_clients()) == []


def test_every_default_message_is_in_the_template(template):
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, ConsumerError)]
    assert len(kinds) > 20
    assert {kind.default_message for kind in kinds} <= set(template)


def test_every_folder_is_a_language_that_is_offered():
    assert {entry.name for entry in LOCALE.iterdir() if entry.is_dir()} == set(BUNDLED.values())


def test_no_translation_is_missing_and_none_is_left_over(folder, template):
    catalog = po_of(folder)
    assert set(entries(catalog)) == set(template)
    assert [id for id, string in entries(catalog).items() if not string] == []
    assert [message.id for message in catalog if message.fuzzy and message.id] == []
    assert not catalog.obsolete


def test_no_translation_is_the_english_text(folder):
    assert [id for id, string in entries(po_of(folder)).items() if id == string and (folder, id) not in SAME] == []


def test_placeholders_match(folder):
    for message, translation in entries(po_of(folder)).items():
        names = [sorted(re.findall(r"\{(\w*)\}", text)) for text in (message, translation)]
        assert names[0] == names[1], translation
        assert placeholders_fit(message, translation)


def test_sentences_end_as_sentences(folder):
    for message, translation in entries(po_of(folder)).items():
        assert message.endswith((".", "?")) == translation.endswith((".", "?", "。", "？", "か？")), translation  # noqa: RUF001 -- Chinese punctuation


def test_what_is_shipped_was_compiled_of_what_is_written(folder):
    """If not: ``tox -e messages``."""
    assert entries(mo_of(folder)) == entries(po_of(folder))


@pytest.mark.parametrize("tag", sorted(BUNDLED))
def test_what_is_shipped_is_what_is_read(tag):
    assert bundled_catalog(tag) == entries(mo_of(BUNDLED[tag]))


def test_of_a_language_that_is_not_ours_there_is_nothing():
    assert bundled_catalog("../de") == bundled_catalog("it") == {}


def test_the_two_ways_to_write_chinese_differ():
    one, other = bundled_catalog("zh-Hans"), bundled_catalog("zh-Hant")
    assert sum(one[message] != other[message] for message in one) > 0.9 * len(one)


# -- those of users ----------------------------------------------------------------------------------------------------


def write(folder, language, messages, domain="messages"):
    target = folder / language / "LC_MESSAGES"
    target.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(locale="de")
    for message, translation in messages.items():
        catalog.add(message, translation)
    with (target / f"{domain}.mo").open("wb") as file:
        write_mo(file, catalog)
    return target / f"{domain}.mo"


def test_catalogs_are_found_by_language(tmp_path):
    write(tmp_path, "pt_BR", {"Sold out.": "Esgotado."})
    write(tmp_path, "zh_TW", {"Sold out.": "售完。"})
    (tmp_path / "README").write_text("not a language")
    problems = []
    assert user_catalogs(tmp_path, problems) == {
        "pt-BR": {"Sold out.": "Esgotado."},
        "zh-Hant": {"Sold out.": "售完。"},
    }
    assert user_catalogs(str(tmp_path), problems).keys() == {"pt-BR", "zh-Hant"}
    assert problems == []


def test_another_domain_is_asked_for_by_name(tmp_path):
    write(tmp_path, "de", {"Sold out.": "Ausverkauft."}, "shop")
    problems = []
    assert user_catalogs(Translations(tmp_path, domain="shop"), problems) == {"de": {"Sold out.": "Ausverkauft."}}
    assert problems == []
    assert user_catalogs(tmp_path, problems) == {}
    assert "domain=" in problems[0].fix


def damage_nothing(path):
    path.write_bytes(b"")


def damage_magic(path):
    path.write_bytes(b"no catalog at all")


def damage_table(path):
    path.write_bytes(path.read_bytes()[:40])


def damage_offsets(path):
    path.write_bytes(struct.pack("<7I", 0x950412DE, 0, 7, 28, 28, 0, 0) + b"\xff" * 200)


def damage_charset(path):
    path.write_bytes(path.read_bytes().replace(b"charset=utf-8", b"charset=utf-x"))


@pytest.mark.parametrize("damage", [damage_nothing, damage_magic, damage_table, damage_offsets, damage_charset])
def test_a_damaged_catalog_is_a_mistake(tmp_path, damage):
    path = write(tmp_path, "de", {"Sold out.": "Ausverkauft."})
    damage(path)
    problems = []
    user_catalogs(tmp_path, problems)
    assert [problem.code for problem in problems] == ["bad-translations"]
    assert str(path) in problems[0].found


@pytest.mark.parametrize("translation", ["Kein {zimmer}", "Kein {room.name}", "{room!r}", "{room:>9}", "{}", "{room"])
def test_a_translation_that_cannot_be_filled_is_a_mistake(tmp_path, translation):
    write(tmp_path, "de", {"No {room}": translation})
    problems = []
    user_catalogs(tmp_path, problems)
    assert [problem.code for problem in problems] == ["bad-translations"]
    assert translation in problems[0].found


@pytest.mark.parametrize(
    ("message", "translation"),
    [("No {room}", "Kein {room}"), ("No {room}", "Keiner"), ("50 % {", "{50 %}"), ("Hello", "Hallo {Welt}")],
)
def test_translations_that_are_well(message, translation):
    assert placeholders_fit(message, translation)


@pytest.mark.parametrize("entry", [7, None, Translations(7), {"path": "locale"}])
def test_what_is_no_place_of_catalogs(entry):
    problems = []
    assert user_catalogs(entry, problems) == {}
    assert [problem.code for problem in problems] == ["bad-translations"]


def test_folders_that_are_wrong(tmp_path):
    for make in (lambda: None, lambda: write(tmp_path, "german", {"a": "b"})):
        make()
        problems = []
        assert user_catalogs(tmp_path, problems) == {}
        assert len(problems) == 1
    problems = []
    assert user_catalogs(tmp_path / "nowhere", problems) == {}
    assert "no folder" in problems[0].found


def test_one_language_in_two_folders_is_a_mistake(tmp_path):
    write(tmp_path, "zh_CN", {"a": "b"})
    write(tmp_path, "zh_Hans", {"a": "c"})
    problems = []
    assert user_catalogs(tmp_path, problems) == {"zh-Hans": {"a": "b"}}
    assert "once more" in problems[0].found


def test_the_nearer_language_counts_more_then_the_earlier_catalog():
    first = {"de": {"a": "first", "b": "first"}}
    second = {"de": {"a": "second", "c": "second"}, "de-AT": {"b": "Austrian"}}
    assert merged([first, second], ["de-AT", "de"]) == {"a": "first", "b": "Austrian", "c": "second"}
