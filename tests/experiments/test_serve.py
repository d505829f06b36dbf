"""The server against clients that send nonsense, and as a process of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bwe_env.errors import ConfigError
from experiments.artifact_store import Store
from experiments.manifest import MAX_BLOB_BYTES, digest_of
from experiments.reproduce_delivery import served
from experiments.serve import TOKEN_VARIABLE, ServeConfig, listen, main, read_token
from experiments.serve_app import ServeLimits
from experiments.serve_protocol import PunctualProtocol
from tests.experiments.store_server import TOKEN, add_model, serving, wait_for

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ServeLimits(max_digests=40, body_timeout_s=1.0)
DIGEST = "0" * 64
HOST = "Host: x\r\n"
WRITER = f"{HOST}Authorization: Bearer {TOKEN}\r\n"


class LogLines(logging.Handler):
    """What the server writes into its log about requests."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "experiments.serve" or record.levelno >= logging.WARNING:
            self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def log() -> Iterator[LogLines]:
    handler = LogLines()
    loggers = [logging.getLogger(name) for name in ("experiments.serve", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("nonsense")
    store = Store(folder / "store", durable=False)
    store.set_ref("plan", add_model(store, folder / "model", size_bytes=9_000))
    return store


@pytest.fixture(scope="module")
def url(store: Store, log: LogLines) -> Iterator[str]:
    del log
    with serving(store, limits=LIMITS) as url:
        yield url


def content_of(store: Store) -> dict[str, bytes]:
    """Every file of a store but its locks."""
    files = [path for path in store.root.rglob("*") if path.is_file()]
    return {str(p): p.read_bytes() for p in files if not p.name.endswith("lock")}


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20.0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def raw_answer(url: str, request: bytes) -> bytes:
    with connect(url) as connection:
        # The server may close before it has read all of an endless request.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
        return everything(connection)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def request(line: str, headers: str = HOST, body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\n{headers}{length}Connection: close\r\n\r\n".encode() + body


NONSENSE = {
    "no HTTP": (b"GARBAGE\r\n\r\n", 400),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"\x00" * 40 + b"\r\n\r\n", 400),
    "half a version": (b"GET /refs HTTP/1\r\nHost: x\r\n\r\n", 400),
    "no host": (b"GET /refs HTTP/1.1\r\n\r\n", 400),
    "NUL in the path": (b"GET /re\x00fs HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "space in a header": (b"GET /refs HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", 400),
    "endless header": (b"GET /refs HTTP/1.1\r\nHost: " + b"x" * 100_000, 400),
    "negative length": (
        b"PUT /refs/plan HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n12345",
        400,
    ),
    "two lengths": (
        b"PUT /refs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        400,
    ),
    "dots": (request("GET /blobs/../../etc/passwd"), 400),
    "escaped dots": (request("GET /blobs/%2e%2e/%2e%2e/etc/passwd"), 400),
    "escaped slash": (request(f"GET /blobs%2f{DIGEST}"), 400),
    "escaped NUL": (request("GET /refs/plan%00"), 400),
    "escaped line break": (request("GET /refs/plan%0d%0aX:1"), 400),
    "backslash": (request("GET /refs/..\\plan"), 400),
    "two slashes": (request("GET //refs"), 400),
    "slash at the end": (request("GET /refs/"), 400),
    "absolute": (request("GET http://elsewhere/refs"), 400),
    "a proxy": (request("CONNECT elsewhere:443"), 400),
    "star": (request("OPTIONS *"), 400),
    "unknown path": (request("GET /etc/passwd"), 404),
    "unknown reference": (request("GET /refs/absent-one"), 404),
    "unknown events": (request("GET /refs/absent-one/events"), 404),
    "upper-case reference": (request("GET /refs/Plan"), 400),
    "hidden reference": (request("GET /refs/.plan"), 400),
    "unknown blob": (request(f"GET /blobs/{DIGEST}"), 404),
    "short digest": (request("GET /blobs/abc"), 400),
    "upper-case digest": (request(f"GET /blobs/{'A' * 64}"), 400),
    "wrong method": (request("PATCH /refs/plan"), 405),
    "trace": (request("TRACE /refs"), 405),
    "odd method": (request("GET<> /refs"), 400),
    "bad tag": (request("GET /refs/plan", f"{HOST}If-None-Match: plan\r\n"), 400),
    "no token": (request("PUT /refs/plan", body=b"{}"), 401),
    "wrong token": (
        request("PUT /refs/plan", f"{HOST}Authorization: Bearer nonsense\r\n", b"{}"),
        401,
    ),
    "no condition": (
        request("PUT /refs/plan", WRITER, json.dumps({"digest": DIGEST}).encode()),
        428,
    ),
    "wrong condition": (
        request(
            "PUT /refs/plan",
            f'{WRITER}If-Match: "{DIGEST}"\r\n',
            json.dumps({"digest": DIGEST}).encode(),
        ),
        412,
    ),
    "absent manifest": (
        request(
            "PUT /refs/plan",
            f"{WRITER}If-Match: *\r\n",
            json.dumps({"digest": DIGEST}).encode(),
        ),
        404,
    ),
    "no JSON": (request("PUT /refs/plan", WRITER, b"{"), 400),
    "JSON of another shape": (request("PUT /refs/plan", WRITER, b"[1]"), 400),
    "a key too many": (request("PUT /refs/plan", WRITER, b'{"digest":"a","more":1}'), 400),
    "digest that is none": (request("PUT /refs/plan", WRITER, b'{"digest":["a"]}'), 400),
    "deep JSON": (request("POST /lacking", HOST, b"[" * 2500), 400),
    "long number": (request("POST /lacking", HOST, b'{"digests":' + b"1" * 2500 + b"}"), 400),
    "surrogate": (request("POST /lacking", HOST, rb'{"digests":["\ud800"]}'), 400),
    "no UTF-8": (request("POST /lacking", HOST, b"\xff\xfe"), 400),
    "too many digests": (
        request("POST /lacking", HOST, json.dumps({"digests": ["1"] * 41}).encode()),
        400,
    ),
    "body too long": (request("POST /lacking", HOST, b" " * 3000), 413),
    "other bytes": (request(f"PUT /blobs/{DIGEST}", WRITER, b"other"), 422),
    "empty blob": (request(f"PUT /blobs/{digest_of(b'')}", WRITER), 422),
    "no manifest": (request(f"PUT /manifests/{digest_of(b'[]')}", WRITER, b"[]"), 422),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_gets_a_4xx_with_a_message_and_one_log_line_and_changes_nothing(
    name: str, url: str, store: Store, log: LogLines
) -> None:
    sent, status = NONSENSE[name]
    before = content_of(store)
    log.lines.clear()
    answer = raw_answer(url, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status
    if b"application/json" in head:
        assert len(json.loads(body)["error"]) > 20
    else:
        assert body == b"Invalid HTTP request received."
    wait_for(lambda: len(log.lines) >= 1)
    assert len(log.lines) == 1, log.lines
    assert "\n" not in log.lines[0]
    assert TOKEN not in log.lines[0]
    assert content_of(store) == before


#: A path as bytes that h11 takes for one.
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    folder=st.sampled_from(["", "refs/", "blobs/", "manifests/", "refs/plan/", "%72efs/"]),
    target=TARGETS | st.sampled_from(["..", "%2e%2e%2f", "%252e", "plan%00", "\\..\\", "C:", "~"]),
)
def test_no_path_reaches_anything_but_references_manifests_and_blobs(
    url: str, store: Store, method: str, folder: str, target: str
) -> None:
    before = content_of(store)
    answer = raw_answer(url, request(f"{method} /{folder}{target}", WRITER))
    path = f"/{folder}{target}".split("?")[0]
    is_there = path in ("/refs", "/refs/plan", "/refs/plan/events") and method in ("GET", "HEAD")
    assert (status_of(answer) == 200) if is_there else (400 <= status_of(answer) < 500)
    assert content_of(store) == before


def test_a_body_is_counted_as_it_comes_whatever_its_length_was_said_to_be(
    url: str, store: Store
) -> None:
    before = content_of(store)
    head = f"PUT /blobs/{DIGEST} HTTP/1.1\r\n{WRITER}"
    with connect(url) as connection:
        connection.sendall(f"{head}Content-Length: {10**15}\r\n\r\n".encode())
        assert status_of(everything(connection)) == 413  # without waiting for the body
    with connect(url) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        sent_bytes = 0
        try:
            while sent_bytes < 64 * MAX_BLOB_BYTES:
                connection.sendall(piece)
                sent_bytes += len(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass
        # What lies in the buffers of both sockets comes on top.
        assert MAX_BLOB_BYTES - len(piece) <= sent_bytes < 16 * MAX_BLOB_BYTES
    assert content_of(store) == before


def test_a_body_that_ends_too_soon_or_comes_too_slowly_is_not_stored(
    url: str, store: Store, log: LogLines
) -> None:
    before = content_of(store)
    head = f"PUT /blobs/{DIGEST} HTTP/1.1\r\n{WRITER}Content-Length: 100\r\n\r\n".encode()
    log.lines.clear()
    with connect(url) as connection:
        connection.sendall(head + b"half")
    wait_for(lambda: bool(log.lines))
    assert "the connection ended after 4 bytes, inside the body" in log.lines[0]
    with connect(url) as connection:
        connection.sendall(head + b"half")
        assert status_of(everything(connection)) == 408
    assert content_of(store) == before


def test_a_connection_that_never_asks_is_closed(
    url: str, monkeypatch: pytest.MonkeyPatch, log: LogLines
) -> None:
    monkeypatch.setattr(PunctualProtocol, "head_timeout_s", 0.3)
    log.lines.clear()
    with connect(url) as silent, connect(url) as slow:
        slow.sendall(b"GET /refs HTT")
        assert everything(silent) == b""
        assert everything(slow) == b""
    assert len([line for line in log.lines if "sent no request within 0.3 s" in line]) == 2


def test_the_head_timer_leaves_connections_alone_that_ask(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PunctualProtocol, "head_timeout_s", 0.6)
    with httpx.Client(base_url=url, trust_env=False) as client:
        with client.stream("GET", "/refs/plan/events") as response:
            lines = response.iter_lines()
            assert next(lines) == ": following"
            time.sleep(0.8)
            assert any(line.startswith("id: ") for line in [next(lines), next(lines)])
        assert client.get("/refs").status_code == 200


def test_a_token_comes_from_a_private_file_or_the_environment_but_not_from_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}-of-the-file\n")
    path.chmod(0o600)
    assert read_token(path) == f"{TOKEN}-of-the-file"
    assert not any(field.name == "token" for field in fields(ServeConfig))


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (TOKEN, 0o640, "chmod 600"),
        (TOKEN, 0o602, "chmod 600"),
        ("short", 0o600, "at least 22"),
        (f"{TOKEN} with spaces", 0o600, "visible ASCII"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_token_others_can_read_or_guess_is_refused(
    tmp_path: Path, content: str | None, mode: int, message: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        read_token(path)


def test_what_cannot_be_served_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(tmp_path / "absent")]) == 2
    assert "is no store" in capsys.readouterr().err
    Store(tmp_path / "store", durable=False)
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--store", str(tmp_path / "store"), "--port", port]) == 2
    assert "--port 0 finds one" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"0\.\.65535"):
        ServeConfig(store=tmp_path / "store", port=70_000)


def test_a_process_tells_its_address_keeps_its_token_to_itself_and_ends_in_good_order(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "store", durable=False)
    digest = add_model(store, tmp_path / "model", size_bytes=9_000)
    store.set_ref("plan", digest)
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    command = [sys.executable, "-m", "experiments.serve", "--store", str(store.root)]
    command += ["--port", "0", "--token-file", str(token_file)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"serving {store.root} at http://127.0.0.1:")
            assert line.endswith("(writable with the token)\n")
            url = line.split(" at ")[1].split(" ")[0]
            with httpx.Client(base_url=url, trust_env=False, timeout=20.0) as client:
                assert client.get("/refs/plan").json()["digest"] == digest
                blob = client.put(
                    f"/blobs/{digest_of(b'x')}",
                    content=b"x",
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                assert blob.status_code == 201
                assert client.get("/blobs/abc").status_code == 400
        finally:
            process.send_signal(signal.SIGTERM)
            output, log = process.communicate(timeout=20.0)
    assert (process.returncode, output) == (0, "stopped\n")
    assert [line.split(" ")[4:7] for line in log.splitlines()] == [
        ["GET", "/refs/plan", "200,"],
        ["PUT", f"/blobs/{digest_of(b'x')}", "201,"],
        ["GET", "/blobs/abc", "400,"],
    ]
    assert TOKEN not in output + log
    assert store.has_blob(digest_of(b"x"))


def test_a_server_started_by_a_program_ends_with_it_even_if_that_is_killed(tmp_path: Path) -> None:
    Store(tmp_path / "store", durable=False)
    starter = (
        "import sys, time; from pathlib import Path\n"
        "from experiments.reproduce_delivery import served\n"
        "with served(Path(sys.argv[1]), log=Path(sys.argv[2])) as server:\n"
        "    print(server.url, server.process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(tmp_path / "store"), str(tmp_path / "log")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        url = program.stdout.readline().split()[0]
        assert httpx.get(f"{url}/refs", trust_env=False, timeout=20.0).json() == {"refs": {}}
        program.kill()

    def is_away() -> bool:
        try:
            httpx.get(f"{url}/refs", trust_env=False, timeout=20.0)
        except httpx.TransportError:
            return True
        return False

    wait_for(is_away)


def test_a_server_that_is_told_to_stop_while_it_starts_does(tmp_path: Path) -> None:
    with served(Store(tmp_path / "store", durable=False).root, log=tmp_path / "log") as server:
        pass  # it has told its address, and nothing else yet
    assert server.process.returncode == 0
