from __future__ import annotations

from pathlib import Path

import pytest

from experiments.artifact_store import Store
from experiments.deliver import main
from experiments.deliver_measure import MeasureConfig, measured_rows
from tests.experiments.store_server import TOKEN, add_model, serving, unused_url


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_what_one_machine_pushes_another_fetches_and_keeps_when_the_server_is_gone(
    tmp_path: Path, token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Store(tmp_path / "mine", durable=False)
    digest = add_model(mine, tmp_path / "model", size_bytes=9_000)
    mine.set_ref("congestion", digest)
    push = ["push", "congestion", "--store", str(mine.root), "--token-file", str(token_file)]
    fetch = ["fetch", "congestion", "--cache", str(tmp_path / "cache"), "--kind", "model"]
    with serving(Store(tmp_path / "server", durable=False)) as url:
        assert main([*push, "--url", url]) == 0
        assert "it was absent" in capsys.readouterr().out
        assert main([*push, "--url", url]) == 0
        assert f"it was {digest}\n0 of " in capsys.readouterr().out
        mine.set_ref("plan", add_model(mine, tmp_path / "model", version=1, size_bytes=9_000))
        other = ["push", "plan", "--name", "congestion", *push[2:], "--expected", "absent"]
        assert main([*other, "--url", url]) == 2
        assert f"{digest!r} is not what it was expected to be" in capsys.readouterr().err
        assert main([*fetch, "--url", url, "--timeout-s", "inf"]) == 0
        folder, told = capsys.readouterr().out.splitlines()
        assert told.startswith(f"{digest} of the server; 9,")
    assert main([*fetch, "--url", unused_url()]) == 0
    assert capsys.readouterr().out.splitlines()[0] == folder
    mine.checkout(digest, tmp_path / "out")
    content = (tmp_path / "out/weights.bin").read_bytes()
    assert (Path(folder) / "weights.bin").read_bytes() == content


def test_what_cannot_be_delivered_is_told_in_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BWE_STORE_TOKEN", raising=False)
    mine = Store(tmp_path / "mine", durable=False)
    digest = add_model(mine, tmp_path / "model", size_bytes=9_000)
    push = ["push", "--store", str(mine.root), "--url"]
    assert main([*push, unused_url(), digest]) == 2
    assert "--name" in capsys.readouterr().err
    with serving(Store(tmp_path / "server", durable=False)) as url:
        assert main([*push, url, digest, "--name", "plan"]) == 2
        assert "401" in capsys.readouterr().err
    fetch = ["fetch", "plan", "--cache", str(tmp_path / "cache"), "--url", unused_url()]
    assert main(fetch) == 2
    assert "no version" in capsys.readouterr().err
    assert main([*fetch, "--timeout-s", "inf"]) == 2
    assert "is away" in capsys.readouterr().err


def test_measuring_tells_what_every_step_sends(tmp_path: Path) -> None:
    rows = measured_rows(tmp_path, MeasureConfig(repeats=2))
    sent_bytes = {row[0]: int(row[2].replace(",", "")) for row in rows}
    blobs = {row[0]: int(row[3]) for row in rows}
    whole = (tmp_path / "first/network_model.safetensors").stat().st_size
    assert whole < sent_bytes["push, first time"] < 1.05 * whole
    assert whole < sent_bytes["fetch, first time"] < 1.05 * whole
    assert blobs["push, first time"] == blobs["fetch, first time"] > 20
    for same in ("push, the same again", "fetch, nothing changed", "fetch, server away"):
        assert (sent_bytes[same], blobs[same]) == (0, 0)
    for change in ("push, one head changed", "fetch, one head changed"):
        assert 1 <= blobs[change] <= 4
        assert sent_bytes[change] < 0.2 * whole
