"""Which URLs are refused by their text, before anything is looked up."""

from __future__ import annotations

import pytest

from router.outbound import public_http
from router.outbound.public_http import (
    MAX_AUTHORITY_CHARS,
    PrivateAddressError,
    judge_url,
    parse_url,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "//93.184.215.14/",
        "ftp://93.184.215.14/",
        "http:/93.184.215.14/",
        "http://",
        "http://[",
        "http://a..b/",
        "http://" + "a" * 64 + ".com/",
        "http://a\\@b/",
        "http://93.184.215.14:99999/",
        "http://1.2.3.4.5/",
        "http://a.0x5/",
        "http://1572395790/",  # 93.184.215.14, which the client would not connect to
    ],
)
def test_what_is_no_url(url: str) -> None:
    """And what never connects."""
    for allow_private in (True, False):
        with pytest.raises(ValueError):
            judge_url(url, allow_private=allow_private)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.0.0.1.", "0x7f.1", "[::1]"],
)
def test_what_is_refused_by_its_text(host: str) -> None:
    """Before a name is resolved."""
    with pytest.raises(PrivateAddressError):
        judge_url(f"http://{host}/", allow_private=False)


@pytest.mark.parametrize("start", ["http://", "//", "ht\ttp:/\n/", "HTTPS://user@", " http://"])
def test_a_host_that_is_far_too_long(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is never mapped: that alone would hold up every other request."""
    monkeypatch.setattr(public_http, "URL", None)
    for char in ("é", "①", "é."):
        with pytest.raises(ValueError, match="too long"):
            parse_url(f"{start}{char * 4000}/x")


def test_what_is_long_but_no_host() -> None:
    """A path and a query may be."""
    long = "x" * 4000
    for text in (f"http://a.example/{long}", f"http://a.example?{long}", f"/{long}//{long}"):
        assert str(parse_url(text)).endswith(long)


def test_the_longest_host() -> None:
    """With its user, and one character more."""
    start = f"{'u' * (MAX_AUTHORITY_CHARS - 10)}@a.example"
    assert parse_url(f"http://{start}/x").host == "a.example"
    with pytest.raises(ValueError, match="too long"):
        parse_url(f"http://u{start}/x")


def test_what_may_be_tried() -> None:
    """A name's addresses are not the text's to tell."""
    for url in ("https://a.example/x?y=1", "HTTP://93.184.215.14:8080/", "http://ünï.example/"):
        assert judge_url(url, allow_private=False).raw_host
    for host in ("127.0.0.1", "localhost", "a.localhost."):
        assert judge_url(f"http://{host}/", allow_private=True).raw_host == host
