"""What a client chose, made fit for a log."""

from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.printable import printable, word


def test_what_would_begin_a_line_or_steer_a_terminal_is_escaped() -> None:
    assert printable("a\nb\r\x1b[31m\u202e\u2028\x00") == "a\\nb\\r\\x1b[31m\\u202e\\u2028\\x00"


def test_what_is_long_is_cut_and_says_so() -> None:
    assert printable("x" * 100, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
    assert printable(10**80) == "1" + "0" * 62 + "…"


def test_letters_of_all_languages_stay_as_they_are() -> None:
    assert printable("Grüße 你好") == "Grüße 你好"


def test_a_word_cannot_be_taken_for_several() -> None:
    assert word('ann" closed 1000') == "ann\\x22\\x20closed\\x201000"
    assert [word(None), word(""), word(0)] == ["-", "-", "0"]


@given(st.text())
def test_whatever_it_was_it_is_one_short_line_of_one_word(text: str) -> None:
    shown = word(text)
    assert shown.isprintable()
    assert " " not in shown
    assert shown.encode()
    assert len(shown) <= 64 * 10
