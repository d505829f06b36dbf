from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.serve_http import (
    RequestRefused,
    byte_range,
    check_condition,
    check_token,
    entity_tag,
    is_known,
    matches_entity_tag,
    range_header,
)
from experiments.serve_requests import check_path

A, B = "a" * 64, "b" * 64


def naive_part(data: bytes, first: int | None, last: int | None) -> bytes:
    """What RFC 9110 §14.1.2 says in words: position by position."""
    if first is None:
        assert last is not None
        return bytes(reversed([byte for i, byte in enumerate(reversed(data)) if i < last]))
    return bytes(byte for i, byte in enumerate(data) if first <= i and (last is None or i <= last))


@given(
    data=st.binary(max_size=12),
    first=st.none() | st.integers(0, 15),
    last=st.none() | st.integers(0, 15),
)
def test_a_range_is_the_bytes_that_the_rfc_counts_out_or_416(
    data: bytes, first: int | None, last: int | None
) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    is_nonsense = (first is None and last is None) or (
        first is not None and last is not None and last < first
    )
    wanted = b"" if is_nonsense else naive_part(data, first, last)
    if not wanted:
        with pytest.raises(RequestRefused, match="Ask for one range") as refusal:
            byte_range(header, len(data))
        assert refusal.value.status == 416
        assert refusal.value.headers == {"Content-Range": f"bytes */{len(data)}"}
    else:
        span = byte_range(header, len(data))
        assert span is not None
        assert data[span[0] : span[1]] == wanted


@pytest.mark.parametrize(
    ("header", "span"),
    # RFC 9110 §14.1.2, a representation of 10000 bytes.
    [
        ("bytes=0-499", (0, 500)),
        ("bytes=500-999", (500, 1000)),
        ("bytes=-500", (9500, 10_000)),
        ("bytes=9500-", (9500, 10_000)),
        ("bytes=9500-20000", (9500, 10_000)),
        (None, None),
        ("lines=1-2", None),
    ],
)
def test_the_examples_of_rfc_9110_come_out_as_it_says(
    header: str | None, span: tuple[int, int] | None
) -> None:
    assert byte_range(header, 10_000) == span


@pytest.mark.parametrize(
    "text", ["", "-", "a-b", "1-2,4-5", "--5", "5--", "0x1-2", "1-²", "9" * 5000 + "-", "5-4"]
)
def test_what_is_no_single_range_is_416(text: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        byte_range(f"bytes={text}", 10_000)
    assert refusal.value.status == 416


def status_of(read: Callable[[], object]) -> int:
    """What a request is answered with that is read so: 200, or why it is refused."""
    try:
        read()
    except RequestRefused as refusal:
        return refusal.status
    return 200


@given(st.text(max_size=40))
def test_no_header_text_breaks_the_reading_of_ranges_and_tags(text: str) -> None:
    assert status_of(lambda: byte_range(f"bytes={text}", 100)) in (200, 416)
    read_tag = status_of(lambda: matches_entity_tag(text, A, is_weak_allowed=True))
    assert read_tag in (200, 400)


def test_a_tag_is_the_digest_in_quotes_and_a_list_matches_any_of_its_tags() -> None:
    assert entity_tag(A) == f'"{A}"'
    assert matches_entity_tag(f'"{B}", "{A}"', A, is_weak_allowed=False)
    assert not matches_entity_tag(f'"{B}"', A, is_weak_allowed=False)
    with pytest.raises(RequestRefused, match="no entity tag"):
        matches_entity_tag(A, A, is_weak_allowed=False)  # without quotes


def test_a_weak_tag_is_enough_to_save_a_download_but_not_to_replace_something() -> None:
    assert matches_entity_tag(f'W/"{A}"', A, is_weak_allowed=True)
    assert not matches_entity_tag(f'W/"{A}"', A, is_weak_allowed=False)


def test_a_star_matches_whatever_there_is_but_not_nothing() -> None:
    assert matches_entity_tag("*", A, is_weak_allowed=False)
    assert not matches_entity_tag("*", None, is_weak_allowed=False)


def test_a_range_of_another_version_is_not_taken() -> None:
    headers = {"range": "bytes=5-", "if-range": entity_tag(B)}
    assert range_header(headers, B) == "bytes=5-"
    assert range_header(headers, A) is None
    assert range_header({"range": "bytes=5-"}, A) == "bytes=5-"


def test_only_the_version_a_client_names_is_known_to_it() -> None:
    assert is_known({"if-none-match": entity_tag(A)}, A)
    assert not is_known({"if-none-match": entity_tag(B)}, A)
    assert not is_known({}, A)


@pytest.mark.parametrize(
    ("headers", "digest", "status"),
    [
        ({}, A, 428),
        ({}, None, 428),
        ({"if-match": entity_tag(A)}, A, None),
        ({"if-match": entity_tag(B)}, A, 412),
        ({"if-match": entity_tag(A)}, None, 412),
        ({"if-none-match": "*"}, None, None),
        ({"if-none-match": "*"}, A, 412),
        ({"if-match": "*"}, A, None),
        ({"if-match": "*", "if-none-match": entity_tag(A)}, A, 412),
    ],
)
def test_a_write_needs_a_condition_that_holds(
    headers: dict[str, str], digest: str | None, status: int | None
) -> None:
    if status is None:
        check_condition(headers, digest)
        return
    with pytest.raises(RequestRefused) as refusal:
        check_condition(headers, digest)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ({"authorization": "Bearer secret"}, "secret", None),
        ({"authorization": "bearer  secret "}, "secret", None),
        ({"authorization": "Bearer secret"}, None, 403),
        ({}, None, 403),
        ({}, "secret", 401),
        ({"authorization": "Basic c2VjcmV0"}, "secret", 401),
        ({"authorization": "Bearer"}, "secret", 401),
        ({"authorization": "Bearer secre"}, "secret", 401),
        ({"authorization": "Bearer ünïcode"}, "secret", 401),
    ],
)
def test_only_the_token_of_the_server_lets_write(
    headers: dict[str, str], token: str | None, status: int | None
) -> None:
    if status is None:
        check_token(headers, token)
        return
    with pytest.raises(RequestRefused) as refusal:
        check_token(headers, token)
    assert refusal.value.status == status
    assert ("WWW-Authenticate" in refusal.value.headers) == (status == 401)


@given(st.lists(st.sampled_from(["refs", "..", ".", "%2e%2e", "", "\\", "a.b", "%00", "é"])))
def test_only_names_between_single_slashes_are_a_plain_path(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    is_plain = path == "/" or all(part in ("refs", "a.b") for part in parts)
    if is_plain:
        check_path(path.encode())
    else:
        with pytest.raises(RequestRefused, match="not plain"):
            check_path(path.encode())
