"""The store over HTTP, asked by a well-behaved client; `test_serve.py` has the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from experiments.artifact_store import Store
from experiments.manifest import digest_of
from experiments.serve import SHUTDOWN_S
from experiments.serve_app import ServeLimits
from tests.experiments.store_server import TOKEN, add_model, serving, write_model

WRITER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def artifact(store: Store, tmp_path: Path) -> str:
    return add_model(store, tmp_path / "model", size_bytes=20_000)


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    limits = ServeLimits(max_digests=20, poll_s=0.05, heartbeat_s=0.2, max_followers=2)
    with (
        serving(store, limits=limits) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


def put_reference(
    client: httpx.Client, name: str, digest: str, condition: dict[str, str]
) -> httpx.Response:
    return client.put(f"/refs/{name}", json={"digest": digest}, headers=WRITER | condition)


def test_a_reference_is_its_digest_and_costs_no_body_when_the_client_has_it(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    store.set_ref("congestion", artifact)
    first = client.get("/refs/congestion")
    assert first.json() == {"digest": artifact, "name": "congestion"}
    assert first.headers["ETag"] == f'"{artifact}"'
    again = client.get("/refs/congestion", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get("/refs").json() == {"refs": {"congestion": artifact}}


def test_manifest_and_blobs_come_with_the_bytes_of_their_digest_and_may_be_kept_for_ever(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    chunk = next(store.manifest(artifact).chunks())
    for path, digest in (("manifests", artifact), ("blobs", chunk.digest)):
        answer = client.get(f"/{path}/{digest}")
        assert digest_of(answer.content) == digest
        assert answer.headers["ETag"] == f'"{digest}"'
        assert "immutable" in answer.headers["Cache-Control"]
        known = client.get(f"/{path}/{digest}", headers={"If-None-Match": f'"{digest}"'})
        assert (known.status_code, known.content) == (304, b"")
        head = client.head(f"/{path}/{digest}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == str(len(answer.content))


def test_parts_of_a_blob_put_together_are_the_blob(client: httpx.Client, store: Store) -> None:
    data = bytes(range(256)) * 4
    path = f"/blobs/{store.put_blob(data)}"
    first = client.get(path, headers={"Range": "bytes=0-99"})
    assert (first.status_code, first.headers["Content-Range"]) == (206, "bytes 0-99/1024")
    rest = client.get(path, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, "bytes 100-1023/1024")
    assert first.content + rest.content == data
    beyond = client.get(path, headers={"Range": "bytes=1024-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */1024")
    other = client.get(path, headers={"Range": "bytes=100-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, data)


def test_many_blobs_come_in_one_answer_in_the_order_asked(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    digests = [chunk.digest for chunk in store.manifest(artifact).chunks()][::-1]
    answer = client.post("/blobs", json={"digests": digests})
    assert answer.content == b"".join(store.read_blob(digest) for digest in digests)
    assert answer.headers["Content-Length"] == str(len(answer.content))
    twice = client.post("/blobs", json={"digests": digests[:1] * 2})
    assert twice.status_code == 400  # a short question must not have an answer without end
    missing = client.post("/blobs", json={"digests": [*digests, "0" * 64]})
    assert missing.status_code == 404
    assert "0" * 64 in missing.json()["error"]


def test_an_artifact_sent_blob_by_blob_becomes_visible_with_its_manifest_and_not_before(
    client: httpx.Client, store: Store, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other", durable=False)
    digest = add_model(other, tmp_path / "sent", size_bytes=30_000)
    data = other.manifest_bytes(digest)
    digests = [chunk.digest for chunk in other.manifest(digest).chunks()]
    assert client.post("/lacking", json={"digests": digests}).json() == {"lacking": digests}
    early = client.put(f"/manifests/{digest}", content=data, headers=WRITER)
    assert early.status_code == 409
    assert not store.has_manifest(digest)
    for blob in digests:
        sent = client.put(f"/blobs/{blob}", content=other.read_blob(blob), headers=WRITER)
        assert sent.status_code == 201
    assert client.post("/lacking", json={"digests": digests}).json() == {"lacking": []}
    assert put_reference(client, "new", digest, {"If-None-Match": "*"}).status_code == 404
    assert client.put(f"/manifests/{digest}", content=data, headers=WRITER).status_code == 201
    assert put_reference(client, "new", digest, {"If-None-Match": "*"}).status_code == 201
    assert store.resolve("new") == digest
    store.checkout(digest, tmp_path / "out")
    assert (tmp_path / "out/weights.bin").read_bytes() == (
        tmp_path / "sent/weights.bin"
    ).read_bytes()


def test_of_two_writers_who_saw_the_same_version_one_is_told_about_the_other(
    client: httpx.Client, store: Store, artifact: str, tmp_path: Path
) -> None:
    second = add_model(store, tmp_path / "second", version=2, size_bytes=20_000)
    third = add_model(store, tmp_path / "third", version=3, size_bytes=20_000)
    store.set_ref("plan", artifact)
    seen = {"If-Match": client.get("/refs/plan").headers["ETag"]}
    assert put_reference(client, "plan", second, {}).status_code == 428
    assert put_reference(client, "plan", second, seen).status_code == 200
    late = put_reference(client, "plan", third, seen)
    assert (late.status_code, late.headers["ETag"]) == (412, f'"{second}"')
    assert put_reference(client, "plan", third, {"If-None-Match": "*"}).status_code == 412
    assert store.resolve("plan") == second


def test_of_many_writers_at_once_exactly_one_wins(
    client: httpx.Client, store: Store, artifact: str, tmp_path: Path
) -> None:
    digests = [
        add_model(store, tmp_path / str(n), version=n, size_bytes=9_000) for n in range(1, 7)
    ]
    store.set_ref("plan", artifact)
    statuses: list[tuple[int, str]] = []

    def write(digest: str) -> None:
        condition = {"If-Match": f'"{artifact}"'}
        statuses.append((put_reference(client, "plan", digest, condition).status_code, digest))

    threads = [threading.Thread(target=write, args=(digest,)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [digest for status, digest in statuses if status == 200]
    assert winners == [store.resolve("plan")]
    assert sorted(status for status, _ in statuses) == [200] + [412] * 5


def test_bytes_of_another_digest_are_refused_and_not_stored(
    client: httpx.Client, store: Store
) -> None:
    wanted = digest_of(b"wanted")
    answer = client.put(f"/blobs/{wanted}", content=b"other", headers=WRITER)
    assert answer.status_code == 422
    assert "Send them again" in answer.json()["error"]
    assert not store.has_blob(wanted)
    assert not store.has_blob(digest_of(b"other"))


def test_a_manifest_that_breaks_a_rule_is_refused_with_the_rule(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    content = json.loads(store.manifest_bytes(artifact))
    for field, value, rule in [
        ("kind", "virus", "kind"),
        ("architecture", "pickle", "architecture"),
        ("members", [], "members"),
    ]:
        data = json.dumps(content | {field: value}, sort_keys=True, separators=(",", ":")).encode()
        answer = client.put(f"/manifests/{digest_of(data)}", content=data, headers=WRITER)
        assert answer.status_code == 422
        assert rule in answer.json()["error"]
    escaping = content | {"members": [content["members"][0] | {"path": "../escaped"}]}
    data = json.dumps(escaping, sort_keys=True, separators=(",", ":")).encode()
    answer = client.put(f"/manifests/{digest_of(data)}", content=data, headers=WRITER)
    assert answer.status_code == 422
    assert store.manifests() == [artifact]


def test_a_damaged_blob_never_leaves_the_server(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    chunk = next(store.manifest(artifact).chunks())
    path = store.blob_path(chunk.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" * chunk.size_bytes)
    for headers in ({}, {"Range": "bytes=0-1"}):
        answer = client.get(f"/blobs/{chunk.digest}", headers=headers)
        assert answer.status_code == 500
        assert b"xx" not in answer.content
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/blobs", json={"digests": [chunk.digest]})


def test_asking_what_is_lacking_changes_nothing_unless_a_writer_asks(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    import os

    chunk = next(store.manifest(artifact).chunks())
    path = store.blob_path(chunk.digest)
    os.utime(path, (1_000, 1_000))
    body = {"digests": [chunk.digest, "0" * 64, "0" * 64]}
    assert client.post("/lacking", json=body).json() == {"lacking": ["0" * 64]}
    assert path.stat().st_mtime == 1_000
    assert client.post("/lacking", json=body, headers=WRITER).json() == {"lacking": ["0" * 64]}
    assert path.stat().st_mtime > 1_000  # the garbage collector keeps it for the writer


def next_digest(lines: Iterator[str]) -> str:
    """Of the next event. The iterator must be kept: httpx hangs up when it is dropped."""
    data = next(line for line in lines if line.startswith("data: "))
    return str(json.loads(data[6:])["digest"])


def test_followers_hear_of_every_change_whoever_made_it(
    client: httpx.Client, store: Store, artifact: str, tmp_path: Path
) -> None:
    second = add_model(store, tmp_path / "second", version=2, size_bytes=20_000)
    third = add_model(store, tmp_path / "third", version=3, size_bytes=20_000)
    store.set_ref("plan", artifact)

    def change() -> None:
        time.sleep(0.2)
        put_reference(client, "plan", second, {"If-Match": "*"})
        time.sleep(0.3)
        store.set_ref("plan", third)  # as another process would

    thread = threading.Thread(target=change)
    thread.start()
    with client.stream("GET", "/refs/plan/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines()
        found = [next_digest(lines) for _ in range(3)]
    thread.join()
    assert found == [artifact, second, third]


def test_a_follower_that_comes_back_is_told_only_what_it_does_not_know(
    client: httpx.Client, store: Store, artifact: str, tmp_path: Path
) -> None:
    second = add_model(store, tmp_path / "second", version=2, size_bytes=20_000)
    store.set_ref("plan", artifact)
    headers = {"Last-Event-ID": artifact}
    with client.stream("GET", "/refs/plan/events", headers=headers) as response:
        lines = response.iter_lines()
        seen = [next(lines) for _ in range(3)]
        assert [line for line in seen if line] == [": following", ": still here"]
        store.set_ref("plan", second)
        assert f"id: {second}" in [next(lines) for _ in range(6)]


def test_only_so_many_follow_and_a_place_is_free_again_when_one_leaves(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    store.set_ref("plan", artifact)
    with client.stream("GET", "/refs/plan/events") as first:
        first_lines = first.iter_lines()
        assert next_digest(first_lines) == artifact
        with client.stream("GET", "/refs/plan/events") as second:
            second_lines = second.iter_lines()
            assert next_digest(second_lines) == artifact
            with client.stream("GET", "/refs/plan/events") as refused:
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        deadline_s = time.monotonic() + 5.0
        statuses = [503]
        while statuses[-1] == 503 and time.monotonic() < deadline_s:
            with client.stream("GET", "/refs/plan/events") as third:
                statuses.append(third.status_code)
            time.sleep(0.05)
        assert statuses[-1] == 200


def test_signatures_travel_beside_the_manifest(
    client: httpx.Client, store: Store, artifact: str
) -> None:
    path = f"/manifests/{artifact}/signatures"
    assert client.get(path).json() == {"signatures": []}
    signature = {"format": "bwe-env signature 1", "key": "a" * 64, "signature": "b" * 128}
    assert client.put(path, json=signature).status_code == 401
    assert client.put(path, json=signature | {"key": "x"}, headers=WRITER).status_code == 422
    body = json.dumps(signature, sort_keys=True, separators=(",", ":"))
    assert client.put(path, content=body, headers=WRITER).status_code == 201
    assert client.get(path).json() == {"signatures": [signature]}
    absent = client.put(f"/manifests/{'0' * 64}/signatures", content=body, headers=WRITER)
    assert absent.status_code == 404


def test_a_read_only_server_takes_nothing_even_with_a_token(
    store: Store, artifact: str, tmp_path: Path
) -> None:
    del tmp_path
    store.set_ref("plan", artifact)
    with serving(store, token=None) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for path in (f"/blobs/{'0' * 64}", f"/manifests/{'0' * 64}", "/refs/plan"):
            answer = client.put(path, content=b"{}", headers=WRITER)
            assert answer.status_code == 403
            assert "read-only" in answer.json()["error"]
        assert client.get("/refs/plan").status_code == 200


def test_a_server_stops_at_once_though_clients_follow(store: Store, tmp_path: Path) -> None:
    write_model(tmp_path / "model", size_bytes=9_000)
    digest = store.add(tmp_path / "model", kind="model", architecture="network_model")
    store.set_ref("plan", digest)
    with httpx.Client(trust_env=False) as client:
        with serving(store) as url:
            request = client.build_request("GET", f"{url}/refs/plan/events")
            lines = client.send(request, stream=True).iter_lines()
            assert next_digest(lines) == digest
            started_s = time.monotonic()
        assert time.monotonic() - started_s < SHUTDOWN_S
        assert not any(lines)  # ended in good order, not cut: the rest is an empty line
