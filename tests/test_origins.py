"""Which pages may open a socket."""

import pytest
from starlette.datastructures import Headers

from fastapi_consumers.origins import is_allowed_origin


def allowed(origin, patterns=None, *, host="example.com", scheme="ws"):
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    return is_allowed_origin(Headers(headers).raw, scheme, patterns if patterns is None else tuple(patterns))


@pytest.mark.parametrize("patterns", [None, [], ["https://other.example"]])
def test_a_handshake_without_origin_comes_from_no_browser_and_passes(patterns):
    assert allowed(None, patterns)


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://example.com", "example.com", "ws"),
        ("HTTP://Example.COM", "eXample.com", "ws"),
        ("https://example.com", "example.com", "wss"),
        ("https://example.com", "example.com:443", "wss"),
        ("http://localhost:8000", "localhost:8000", "ws"),
        ("http://[::1]:8000", "[::1]:8000", "ws"),
        # TLS ends at a proxy that tells nobody.
        ("https://example.com", "example.com", "ws"),
    ],
)
def test_the_same_host_and_port_pass_by_default(origin, host, scheme):
    assert allowed(origin, host=host, scheme=scheme)


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://evil.example", "example.com", "ws"),
        ("http://sub.example.com", "example.com", "ws"),
        ("http://example.com.evil.example", "example.com", "ws"),
        ("http://example.com:8000", "example.com", "ws"),
        ("http://example.com", "example.com:8000", "ws"),
        ("http://example.com", "example.com", "wss"),  # an insecure page for a secure socket
        ("http://evil.example@example.com:x", "example.com", "ws"),
        ("null", "example.com", "ws"),
        ("", "example.com", "ws"),
        ("http://", "", "ws"),
        ("http://example.com", "", "ws"),
        ("http://example.com", "example.com:port", "ws"),
        ("http://[", "example.com", "ws"),
        ("http://" + "a" * 300, "a" * 300, "ws"),  # longer than any name of a host
    ],
)
def test_any_other_page_does_not(origin, host, scheme):
    assert not allowed(origin, host=host, scheme=scheme)


@pytest.mark.parametrize(
    ("origin", "pattern"),
    [
        ("https://a.example", "https://a.example"),
        ("https://A.example", "https://a.EXAMPLE/"),
        ("https://x.a.example", "https://*.a.example"),
        ("https://y.x.a.example", "https://*.a.example"),
        ("http://localhost:5173", "http://localhost:*"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("HTTP://[::1]:5173", "http://[::1]:*"),
        ("https://X.A.Example:8443", "https://*.a.example:8443"),
        ("https://a.example", "a.example"),
        ("https://x.a.example", "*.a.example"),
        ("null", "null"),
        ("null", "*"),
        ("https://anything", "*"),
    ],
)
def test_patterns_match_whole_origins(origin, pattern):
    assert allowed(origin, ["https://unrelated.example", pattern])


@pytest.mark.parametrize(
    ("origin", "pattern"),
    [
        ("http://example.com", "https://example.com"),
        ("https://a.example:8443", "https://a.example"),
        ("https://a.example", "https://*.a.example"),
        ("https://evila.example", "https://*.a.example"),
        ("https://a.example.evil", "https://a.example"),
        ("https://evil/.a.example", "https://*.a.example"),
        ("https://evil:1.a.example", "https://*.a.example"),
        ("https://axexample", "https://a.example"),
        ("https://evil-a.example", "https://*.a.example"),
        ("https://evil-a.example", "*.a.example"),
        ("https://x.a.example.evil.example", "https://*.a.example"),
        ("https://user@x.a.example", "https://*.a.example"),
        ("https://evil?x.a.example", "https://*.a.example"),
        ("https://evil#x.a.example", "https://*.a.example"),
        ("https://evil\\x.a.example", "https://*.a.example"),
        ("https://x.a.example:8443", "https://*.a.example"),
        ("http://localhost:80.evil.example:1", "http://localhost:*"),
        ("http://[::1]:5173", "http://[::2]:*"),
        ("http://[::1]", "http://[::1]:*"),
        ("null", "a.example"),
        ("", "https://*"),
        ("http://1.example", "http://[12].example"),
        ("null", "https://*"),
        ("https://a.example\n", "https://a.example"),
    ],
)
def test_patterns_match_nothing_else(origin, pattern):
    assert not allowed(origin, [pattern])


def test_an_empty_list_allows_no_page_not_even_of_the_same_host():
    assert not allowed("http://example.com", [])
