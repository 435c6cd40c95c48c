"""Names of languages: their spelling, and which fits best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.languages import MAX_HEADER, MAX_RANGES, accepted, best_match, canonical, widened

OURS = ("en", "de", "es", "fr", "ja", "zh-Hans", "zh-Hant")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("de", "de"),
        ("DE", "de"),
        (" de ", "de"),
        ("de_at", "de-AT"),
        ("de_DE.UTF-8", "de-DE"),
        ("ca@valencia", "ca"),
        ("de-", "de"),
        ("es-419", "es-419"),
        ("fil", "fil"),
        ("sr-latn-rs", "sr-Latn-RS"),
        ("de-CH-1996", "de-CH"),
        ("en-US-u-ca-gregory", "en-US"),
        ("zh", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh_CN", "zh-Hans"),
        ("zh-Hans", "zh-Hans"),
        ("zh-hans-cn", "zh-Hans"),
        ("zh-SG", "zh-Hans-SG"),
        ("zh-TW", "zh-Hant"),
        ("zh_Hant_TW", "zh-Hant"),
        ("zh-HK", "zh-Hant-HK"),
        ("zh-Hans-TW", "zh-Hans-TW"),
        ("cmn-Hant", "zh-Hant"),
        ("zh-cmn-Hans-CN", "zh-Hans"),
    ],
)
def test_one_spelling_for_all(tag, expected):
    assert canonical(tag) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize("tag", ["", "d", "*", "english", "12", "../de", "de/AT", "dé", "d" * 4, None, 7, b"de"])
def test_what_is_no_tag(tag):
    assert canonical(tag) is None


def test_a_tag_that_is_too_long_is_none():
    assert canonical("de-" + "x" * 32) == "de"
    assert canonical("de-" + "x" * 33) is None


def test_a_tag_widens_but_never_into_another_script_of_chinese():
    assert widened("sr-Latn-RS") == ["sr-Latn-RS", "sr-Latn", "sr"]
    assert widened("zh-Hant-HK") == ["zh-Hant-HK", "zh-Hant"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("zh-HK", "zh-Hant"),
        ("zh-SG", "zh-Hans"),
        ("en-GB", "en"),
        ("it", None),
        ("", None),
        (None, None),
    ],
)
def test_the_best_of_ours(wanted, expected):
    assert best_match(wanted, OURS) == expected


def test_who_wants_a_language_is_served_by_a_kind_of_it_and_the_nearest_counts():
    assert best_match("pt", ("en", "pt-BR", "pt-PT")) == "pt-BR"
    assert best_match("pt-PT", ("en", "pt-BR", "pt-PT")) == "pt-PT"
    assert best_match("pt-AO", ("en", "pt-BR")) is None  # Another country's is not ours to choose.
    assert best_match("de-AT", ("de", "de-AT")) == "de-AT"
    assert best_match("en", ("eng-X", "eno")) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("de", ["de"]),
        ("da, en-GB;q=0.8, en;q=0.7", ["da", "en-GB", "en"]),
        ("en;q=0.7,da,de;q=0.9", ["da", "de", "en"]),
        ("fr;q=0.5, de;q=0.5", ["fr", "de"]),
        ("de;q=0, en", ["en"]),
        ("de;q=0.000,en;q=0.001", ["en"]),
        ("*;q=0.1, ja", ["ja", "*"]),
        ("de; Q = 0.5 ,en", ["en", "de"]),
        (",, ,de,", ["de"]),
        ("de;q=1.000", ["de"]),
        ("de;q=1.5, en;q=-1, fr;q=nan, ja;q=, es;x=1, it;q=0.5;q=1", []),
    ],
)
def test_accept_language(header, expected):
    assert accepted(header) == expected


def test_of_a_hostile_header_little_is_read():
    assert accepted(",".join(["xx"] * 10_000)) == ["xx"] * MAX_RANGES
    assert accepted("x" * 1_000_000) == []
    cut = accepted("de," + "x" * (MAX_HEADER - 5) + ",en")
    assert cut[0] == "de"
    assert "en" not in cut
    assert accepted("de;q=0." + "9" * 500) == ["de"]


@given(st.text(max_size=200))
def test_any_header_is_read_and_any_tag_matched_or_not(text):
    for tag in accepted(text):
        assert best_match(tag, OURS) in (None, *OURS)
    assert (found := canonical(text)) is None or canonical(found) == found
