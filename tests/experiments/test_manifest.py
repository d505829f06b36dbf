from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.manifest import (
    MAX_ARTIFACT_BYTES,
    MAX_BLOB_BYTES,
    MAX_JSON_BYTES,
    MAX_MEMBERS,
    ArtifactRefused,
    Chunk,
    Manifest,
    Member,
    digest_of,
)

#: SHA-256 of b"abc" (FIPS 180-2, appendix B.1) and of nothing.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def member(path: str = "plan.json", content: bytes = b"abc") -> Member:
    chunks = (Chunk(digest_of(content), len(content)),) if content else ()
    return Member(path, digest_of(content), len(content), chunks)


def manifest(**changes: Any) -> Manifest:
    values = {"kind": "model", "architecture": "network_model", "members": (member(),)}
    return Manifest(**{**values, **changes})


def content() -> dict[str, Any]:
    return json.loads(manifest(metadata={"seed": 1}).to_bytes())


def encoded(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True
    ).encode()


def test_a_manifest_has_the_bytes_written_out_by_hand() -> None:
    expected = (
        '{"architecture":"network_model","format":"bwe-env artifact 1","kind":"model","members":['
        f'{{"chunks":[["{ABC}",3]],"digest":"{ABC}","path":"a/ä.json","size_bytes":3}},'
        f'{{"chunks":[],"digest":"{EMPTY}","path":"b","size_bytes":0}}],'
        '"metadata":{"a":[1,2.5,null,true],"b":"x"}}'
    ).encode()
    made = manifest(
        members=(member("b", b""), member("a/ä.json")),
        metadata={"b": "x", "a": (1, 2.5, None, True)},
    )
    assert made.to_bytes() == expected
    assert made.digest == hashlib.sha256(expected).hexdigest()
    assert Manifest.from_bytes(expected) == made


def test_the_order_of_members_and_keys_changes_nothing() -> None:
    a, b = member("a"), member("b", b"xyz")
    first = manifest(members=(a, b), metadata={"x": 1, "y": {"p": 1, "q": 2}})
    second = manifest(members=(b, a), metadata={"y": {"q": 2, "p": 1}, "x": 1})
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "policy", "architecture": "mlp"},
        {"members": (member("other.json"),)},
        {"members": (member(content=b"abd"),)},
        {"metadata": {"seed": 1}},
    ],
)
def test_everything_that_a_manifest_says_is_in_its_digest(change: dict[str, Any]) -> None:
    assert manifest(**change).digest != manifest().digest


def test_a_manifest_does_not_change_with_the_metadata_it_was_made_from() -> None:
    metadata = {"scores": [1, 2]}
    made = manifest(metadata=metadata)
    before = made.digest
    metadata["scores"].append(3)
    assert made.digest == before


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a/./b",
        "a//b",
        "a/",
        ".",
        "..",
        "a\\b",
        "..\\up",
        "C:",
        "C:\\x",
        "c:/x",
        "file:stream",
        "con",
        "NUL.txt",
        "a/aux.tar.gz",
        "LPT1",
        "com¹.log",
        "CONOUT$",
        "nul .txt",
        "name.",
        "name ",
        "a./b",
        "what?",
        "a*b",
        "a|b",
        '"a"',
        "<a>",
        "new\nline",
        "nul\x00byte",
        "\x7f",
        unicodedata.normalize("NFD", "ä"),
        "\ud800",
        "n" * 256,
        "ä" * 128,
        "/".join("abcdefghijklmnopq"),
        "/".join(["d" * 200] * 6),
        7,
        None,
    ],
)
def test_a_path_that_is_not_inside_the_folder_on_every_system_is_refused(path: Any) -> None:
    with pytest.raises(ArtifactRefused, match="member path") as refused:
        Member(path, EMPTY, 0, ())
    assert refused.value.seen == path
    value = content()
    value["members"][0]["path"] = path
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(encoded(value) if path != "\ud800" else json.dumps(value).encode())


@pytest.mark.parametrize(
    "path", ["a", ".hidden", "a/b.c/d", "ä.json", "con1", "console", "a b", "n" * 255, "日本/模型"]
)
def test_a_path_that_means_the_same_everywhere_is_taken(path: str) -> None:
    assert Member(path, EMPTY, 0, ()).path == path


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("straße", "STRASSE"),
        ("Dir/x", "dir/y"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/B"),
    ],
)
def test_paths_that_clash_on_some_system_are_refused(
    paths: tuple[str, str],
) -> None:
    for order in (paths, paths[::-1]):
        with pytest.raises(ArtifactRefused, match="member paths"):
            manifest(members=tuple(member(path) for path in order))


def test_neighbours_with_a_common_beginning_are_taken() -> None:
    paths = ["a", "ab", "a.b", "c/a", "c/ab", "c.d/a"]
    made = manifest(members=tuple(member(path) for path in paths))
    assert [m.path for m in made.members] == sorted(paths)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("virus", "mlp"),
        ("model", "mlp"),
        ("policy", "network_model"),
        ("model", "pickle"),
        (["model"], "network_model"),
        ("model", {"a": 1}),
        (None, None),
    ],
)
def test_what_no_code_of_the_project_reads_is_refused(kind: Any, architecture: Any) -> None:
    with pytest.raises(ArtifactRefused, match=r"must be.* one of "):
        manifest(kind=kind, architecture=architecture)


def digest_with(index: int) -> str:
    return digest_of(index.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chunk(ABC, 0),
        lambda: Chunk(ABC, -1),
        lambda: Chunk(ABC, True),
        lambda: Chunk(ABC, 3.0),  # type: ignore[arg-type]
        lambda: Chunk(ABC, MAX_BLOB_BYTES + 1),
        lambda: Chunk(ABC.upper(), 3),
        lambda: Chunk(ABC[:-1], 3),
        lambda: Chunk(ABC + "\n", 3),
        lambda: Chunk("../" + ABC[3:], 3),
        lambda: Member("a", ABC, 4, (Chunk(ABC, 3),)),
        lambda: Member("a", ABC, 3, ()),
        lambda: Member("a", ABC, 0, ()),
        lambda: Member("a", EMPTY, 3, (Chunk(ABC, 3),)),
        lambda: Member("a", ABC, MAX_ARTIFACT_BYTES + 1, (Chunk(ABC, 3),)),
        lambda: Member("a", ABC, 10**30, (Chunk(ABC, 3),)),
    ],
)
def test_sizes_and_digests_that_do_not_add_up_are_refused(make: Any) -> None:
    with pytest.raises(ArtifactRefused):
        make()


def test_a_digest_of_two_sizes_is_refused() -> None:
    other = Member("b", ABC, 4, (Chunk(ABC, 4),))
    with pytest.raises(ArtifactRefused, match="must have one size"):
        manifest(members=(member("a"), other))


def test_members_that_are_too_large_together_are_refused_before_a_byte_is_read() -> None:
    chunk = Chunk(ABC, MAX_BLOB_BYTES)
    half = MAX_ARTIFACT_BYTES // MAX_BLOB_BYTES // 2
    members = [
        Member(f"m{i}", digest_with(i), half * MAX_BLOB_BYTES, (chunk,) * half) for i in range(3)
    ]
    with pytest.raises(ArtifactRefused, match=f"at most {MAX_ARTIFACT_BYTES} bytes"):
        manifest(members=tuple(members))


@pytest.mark.parametrize("count", [0, MAX_MEMBERS + 1])
def test_no_members_and_too_many_are_refused(count: int) -> None:
    members = tuple(Member(f"m{i}", EMPTY, 0, ()) for i in range(count))
    with pytest.raises(ArtifactRefused, match="members refused"):
        manifest(members=members)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        b"bytes",
        {1: 2},
        {"a": object()},
        "tab\x0bvertical",
        unicodedata.normalize("NFD", "ä"),
        {unicodedata.normalize("NFD", "ä"): 1},
        "\udc00",
        [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]],
    ],
)
def test_metadata_that_json_does_not_keep_exactly_is_refused(value: Any) -> None:
    with pytest.raises(ArtifactRefused, match="metadata"):
        manifest(metadata={"x": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b'{"a":1,"a":2}',
        b'{"x":NaN}',
        b'{"x":-Infinity}',
        b" " * (MAX_JSON_BYTES + 1),
    ],
    ids=lambda data: data[:8].decode(errors="replace"),
)
def test_what_is_no_json_object_of_bounded_size_and_depth_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        manifest().to_bytes() + b"\n",
        manifest().to_bytes().replace(b'":', b'": ', 1),
        json.dumps(json.loads(manifest(metadata={"x": "ä"}).to_bytes()), sort_keys=True).encode(),
        manifest(metadata={"x": 1.5}).to_bytes().replace(b"1.5", b"1.50"),
        manifest(metadata={"x": 1.5}).to_bytes().replace(b"1.5", b"15e-1"),
        manifest(metadata={"x": 0}).to_bytes().replace(b'"x":0', b'"x":-0'),
        manifest(metadata={"x": 0.1}).to_bytes().replace(b"0.1", b"0.1000000000000000055"),
        b"{" + b",".join(reversed(manifest().to_bytes()[1:-1].rsplit(b",", 1))) + b"}",
    ],
)
def test_another_spelling_of_the_same_content_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(data)


def with_change(change: Any) -> bytes:
    value = content()
    change(value)
    return encoded(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("kind"),
        lambda value: value.update(extra=1),
        lambda value: value.update(format="bwe-env artifact 2"),
        lambda value: value.update(members={}),
        lambda value: value.update(members=[[]]),
        lambda value: value.update(members=[None] * (MAX_MEMBERS + 1)),
        lambda value: value.update(metadata=[]),
        lambda value: value["members"][0].update(mode=0o4755),
        lambda value: value["members"][0].update(link="/etc/passwd"),
        lambda value: value["members"][0].update(chunks=[[ABC]]),
        lambda value: value["members"][0].update(chunks=[[ABC, 3, 4]]),
        lambda value: value["members"][0].update(chunks=[{"digest": ABC, "size_bytes": 3}]),
        lambda value: value["members"][0].update(chunks="x"),
        lambda value: value["members"][0].update(size_bytes="3"),
        lambda value: value["members"].append(value["members"][0]),
    ],
)
def test_fields_that_are_missing_unknown_or_of_another_type_are_refused(change: Any) -> None:
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(with_change(change))


def test_a_refusal_says_where_what_was_seen_and_what_is_allowed_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ArtifactRefused) as refused,
    ):
        Member("../up", EMPTY, 0, ())
    error = refused.value
    assert (error.where, error.seen) == ("member path", "../up")
    assert str(error).startswith("member path refused: '../up' must not hold '..'")
    assert caplog.messages == [str(error)]


def test_a_message_about_something_enormous_stays_one_short_line() -> None:
    for value in ("x\n" * 10**6, [["y" * 10**5] * 100] * 100, "/" * 10**6):
        with pytest.raises(ArtifactRefused) as refused:
            Member(value, EMPTY, 0, ())  # type: ignore[arg-type]
        assert len(str(refused.value)) < 600
        assert "\n" not in str(refused.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([ABC, EMPTY, "a/b", "model", "network_model", "bwe-env artifact 1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_of_any_bytes_nothing_but_a_refusal_comes_out(data: bytes) -> None:
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(data)


@given(json_values)
def test_of_any_json_nothing_but_a_refusal_comes_out(value: Any) -> None:
    with pytest.raises(ArtifactRefused):
        Manifest.from_bytes(json.dumps(value).encode(errors="surrogatepass"))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the parts of a JSON value are."""
    found = [path]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@given(data=st.data(), new=json_values)
def test_a_manifest_with_one_part_replaced_is_refused_or_means_what_it_says(
    data: st.DataObject, new: Any
) -> None:
    value = content()
    path = data.draw(st.sampled_from(places(value)[1:]))
    changed = json.dumps(
        replaced(value, path, new), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode(errors="surrogatepass")
    try:
        made = Manifest.from_bytes(changed)
    except ArtifactRefused:
        return
    assert made.to_bytes() == changed


@given(position=st.integers(0, len(manifest().to_bytes()) - 1), bit=st.integers(0, 7))
def test_a_manifest_with_one_bit_flipped_is_refused_or_another_artifact(
    position: int, bit: int
) -> None:
    data = bytearray(manifest().to_bytes())
    data[position] ^= 1 << bit
    try:
        made = Manifest.from_bytes(bytes(data))
    except ArtifactRefused:
        return
    assert made.digest != manifest().digest
    assert made.to_bytes() == data


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='<>:"/|?*\\.'),
    min_size=1,
    max_size=8,
).map(lambda name: unicodedata.normalize("NFC", name).strip() or "x")


@given(
    st.dictionaries(names.map(lambda name: f"f-{name}-".casefold()), st.binary(max_size=4)),
    st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False) | names, max_size=4),
)
def test_every_good_manifest_reads_back_as_itself(
    files: dict[str, bytes], metadata: dict[str, Any]
) -> None:
    paths = {unicodedata.normalize("NFC", name): data for name, data in files.items()}
    members = tuple(member(path, data) for path, data in paths.items()) or (member(),)
    made = manifest(members=members, metadata=metadata)
    assert Manifest.from_bytes(made.to_bytes()) == made
    assert dataclasses.replace(made).digest == made.digest
