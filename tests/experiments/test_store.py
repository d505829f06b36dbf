from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from experiments import store as command
from experiments.artifact_store import Store
from experiments.manifest import digest_of
from tests.experiments.stored_models import damage, read_files, write_files

ADD = ("add", "model", "--kind", "model", "--architecture")
COMMANDS = ("add", "list", "show", "name", "verify", "gc", "checkout", "transfer", "keygen", "sign")
FILES = {"network_model.json": b"{}", "weights.bin": b"a" * 2000}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    write_files(tmp_path / "model", FILES)


def run(*argv: str) -> int:
    return command.main(list(argv))


def add(*options: str) -> int:
    return run(*ADD, "network_model", *options)


def printed_digest(capsys: pytest.CaptureFixture[str]) -> str:
    found = re.search(r"\b[0-9a-f]{64}\b", capsys.readouterr().out)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("name", [*COMMANDS, "measure", ""])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*([name] if name else []), "--help")
    printed = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert f"python -m experiments.store {name}".strip() in printed
    if not name:
        assert all(other in printed for other in COMMANDS)


def test_what_was_added_by_name_is_listed_shown_and_checked_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "scores.json").write_text('{"auc": 0.87}')
    assert add("--name", "congestion", "--metadata", "scores.json") == 0
    printed = capsys.readouterr().out
    digest = Store(tmp_path / "runs/store").resolve("congestion")
    assert printed.startswith(f"{digest}: model, 2 files, 2,002 bytes, in ")
    assert "congestion stands for it" in printed
    assert run("list") == 0
    printed = capsys.readouterr().out
    assert re.search(rf"{digest}.* congestion .* model .* network_model .* 2 .* 2,002", printed)
    assert run("show", "congestion") == 0
    printed = capsys.readouterr().out
    assert re.search(rf"weights\.bin .* 2,000 .* 1 .* {digest_of(FILES['weights.bin'])}", printed)
    assert "auc: 0.87" in printed
    assert run("checkout", "congestion", "out", "--members", "weights.bin") == 0
    assert "1 files of 2,000 bytes written, 0 were there" in capsys.readouterr().out
    assert run("checkout", digest, "out") == 0
    assert "1 files of 2 bytes written, 1 were there" in capsys.readouterr().out
    assert read_files(tmp_path / "out") == FILES


def test_a_transfer_prints_what_it_sent_and_takes_the_name_along(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    add("--name", "congestion")
    digest = printed_digest(capsys)
    total = 2_002 + len(Store("runs/store").manifest_bytes(digest))
    assert run("transfer", "congestion", "--target", "other") == 0
    assert re.search(
        rf"congestion .* {total:,} .* {total:,} .* 100\.0% .* 2 ", capsys.readouterr().out
    )
    assert Store("other").refs() == {"congestion": digest}
    assert run("transfer", digest, "--target", "other") == 0
    assert re.search(rf" 0 .* {total:,} .* 0\.0% .* 0 ", capsys.readouterr().out)


def test_a_name_goes_back_to_an_earlier_artifact_and_is_forgotten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    add("--name", "model")
    first = printed_digest(capsys)
    write_files(tmp_path / "model", {"more.json": b"[]"})
    add("--name", "model", "--expected", first)
    second = printed_digest(capsys)
    assert add("--name", "model", "--expected", first) == 2
    assert f"must still be {first}" in capsys.readouterr().err
    assert Store("runs/store").resolve("model") == second
    assert run("name", "model", first, "--expected", second) == 0
    assert run("name", "alias", "model", "--expected", "absent") == 0
    assert Store("runs/store").refs() == {"alias": first, "model": first}
    assert run("name", "model", "absent") == 0
    assert Store("runs/store").refs() == {"alias": first}


def test_garbage_is_told_and_then_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    add()
    size = 2_002 + len(Store("runs/store").manifest_bytes(printed_digest(capsys)))
    assert run("gc") == 0
    assert "deleted 0 artifacts, 0 blobs, 0 bytes; kept 2 blobs" in capsys.readouterr().out
    assert run("gc", "--grace-s", "0", "--dry-run") == 0
    assert f"would delete 1 artifacts, 2 blobs, {size:,} bytes" in capsys.readouterr().out
    assert run("gc", "--grace-s", "0") == 0
    assert f"deleted 1 artifacts, 2 blobs, {size:,} bytes; kept 0" in capsys.readouterr().out
    assert Store("runs/store").manifests() == []
    assert run("gc", "--grace-s", "-1") == 2


def test_a_damaged_store_has_exit_code_1_until_it_is_mended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    add("--name", "model")
    assert run("verify") == 0
    assert "1 names, 1 artifacts, 2 sound blobs of 2,002 bytes, 0 prob" in capsys.readouterr().out
    damage(Store("runs/store").blob_path(digest_of(FILES["weights.bin"])), b"a" * 1999 + b"b")
    assert run("verify", "--repair") == 1
    captured = capsys.readouterr()
    assert "'weights.bin' lacks sound blobs" in captured.err
    assert "1 damaged blobs moved" in captured.out
    assert add() == 0
    assert run("verify") == 0


def test_a_signed_artifact_is_checked_out_only_by_who_trusts_its_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="the sign extra is not installed")
    add("--name", "model")
    capsys.readouterr()
    assert run("keygen", "key.pem") == 0
    (tmp_path / "trusted").write_text(capsys.readouterr().out)
    assert run("checkout", "model", "out", "--trusted", "trusted") == 2
    assert "must be of one of 1 trusted keys" in capsys.readouterr().err
    assert run("sign", "model", "--key", "key.pem") == 0
    key = capsys.readouterr().out.split()[-1]
    assert run("show", "model") == 0
    assert f"signature of {key}" in capsys.readouterr().out
    assert run("transfer", "model", "--target", "other", "--trusted", "trusted") == 0
    assert run("checkout", "model", "out", "--trusted", "trusted", "--store", "other") == 0
    assert read_files(tmp_path / "out") == FILES


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--store", "nowhere"], "is no store"),
        (["show", "congestoin"], "Did you mean 'congestion'"),
        (["show", "0" * 64], "must be in"),
        (["checkout", "congestion", "out", "--members", "x"], "unknown member 'x'"),
        (["transfer", "--target", "other"], "at least one name"),
        (["transfer", "congestion", "nobody", "--target", "other"], "unknown reference 'nobody'"),
        (["name", "../up", "congestion"], "reference name refused: '../up'"),
        (["add", "nowhere", "--kind", "model", "--architecture", "network_model"], "nowhere"),
        ([*ADD, "mlp"], "one of network_model"),
        ([*ADD, "network_model", "--metadata", "model/weights.bin"], "must be JSON"),
        ([*ADD, "network_model", "--metadata", "nowhere.json"], "cannot be read"),
    ],
)
def test_wrong_input_is_told_in_one_message_and_changes_nothing(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    add("--name", "congestion")
    before = read_files(tmp_path)
    capsys.readouterr()
    try:
        code = run(*argv)
    except SystemExit as error:  # of options that cannot be parsed
        code = int(error.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert read_files(tmp_path) == before


def test_the_measurement_prints_what_a_second_push_sends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("safetensors", reason="the train extra is not installed")
    assert run("measure", "--dataset-bytes", "5000000") == 0
    shares = {
        row[0]: float(row[1])
        for row in re.findall(r"│ (.+?) +│.*?│.*?│ +([0-9.]+)% │", capsys.readouterr().out)
    }
    assert shares["a model, first time"] == 100.0
    assert shares["the same again"] == 0.0
    assert 0 < shares["one head changed"] < 8.0
    assert shares["one head changed"] < shares["the shared layer changed"] < 60.0
    assert shares["all tensors changed"] == 100.0
    assert 0 < shares["100 bytes put into its middle"] < 8.0
