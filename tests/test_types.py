"""Close codes and reasons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.types import MAX_CLOSE_REASON_BYTES, CloseCode, close_reason


@given(st.text())
def test_a_reason_fits_into_a_close_frame(text: str) -> None:
    reason = close_reason(text)
    assert len(reason.encode()) <= MAX_CLOSE_REASON_BYTES
    assert text.encode("utf-8", "replace").decode().startswith(reason)


@pytest.mark.parametrize(("text", "length"), [("x" * 123, 123), ("x" * 124, 123), ("é" * 100, 61), ("", 0)])
def test_a_reason_is_cut_between_characters(text: str, length: int) -> None:
    assert close_reason(text) == text[:length]


def test_codes_of_the_frameworks_own_are_in_the_private_range() -> None:
    assert all(1000 <= code <= 1015 or 4000 <= code <= 4999 for code in CloseCode)
