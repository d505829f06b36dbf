from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import ArtifactError, ConfigError
from experiments import signing
from experiments.artifact_store import Store
from experiments.manifest import ArtifactRefused, NotInStoreError, digest_of
from experiments.signing import Signature
from experiments.transfer import transfer
from tests.experiments.stored_models import add_files, blobs, read_files, visible

#: RFC 8032 §7.1, TEST 2: the message is the byte 0x72.
RFC_KEY = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


@pytest.fixture
def cryptography() -> None:
    pytest.importorskip("cryptography", reason="the sign extra is not installed")


def test_a_signature_reads_back_as_itself() -> None:
    signature = Signature(RFC_KEY, RFC_SIGNATURE)
    data = signature.to_bytes()
    assert Signature.from_bytes(data) == signature
    assert json.loads(data) == {
        "format": "bwe-env signature 1",
        "key": RFC_KEY,
        "signature": RFC_SIGNATURE,
    }


@given(st.binary(max_size=100) | st.text(max_size=20).map(lambda text: json.dumps(text).encode()))
def test_of_any_bytes_nothing_but_a_refusal_comes_out(data: bytes) -> None:
    with pytest.raises(ArtifactRefused):
        Signature.from_bytes(data)


@pytest.mark.parametrize(
    "change",
    [{"key": "../" + RFC_KEY[3:]}, {"key": None}, {"signature": "00"}, {"format": "x"}, {"y": 1}],
)
def test_a_signature_of_another_form_is_refused(change: dict[str, object]) -> None:
    content = json.loads(Signature(RFC_KEY, RFC_SIGNATURE).to_bytes())
    with pytest.raises(ArtifactRefused):
        Signature.from_bytes(json.dumps({**content, **change}).encode())


def test_without_the_package_the_message_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for use in (
        lambda: signing.generate_key(tmp_path / "key"),
        lambda: signing.sign(b"", tmp_path / "key"),
        lambda: signing.is_valid(b"", Signature(RFC_KEY, RFC_SIGNATURE)),
    ):
        with pytest.raises(ConfigError, match=r'pip install -c constraints.txt -e "\.\[sign\]"'):
            use()


@pytest.mark.usefixtures("cryptography")
def test_the_signature_of_rfc_8032_is_valid_and_with_a_bit_flipped_is_not() -> None:
    assert signing.is_valid(b"\x72", Signature(RFC_KEY, RFC_SIGNATURE))
    assert not signing.is_valid(b"\x73", Signature(RFC_KEY, RFC_SIGNATURE))
    flipped = RFC_SIGNATURE[:-1] + "1"
    assert not signing.is_valid(b"\x72", Signature(RFC_KEY, flipped))
    assert not signing.is_valid(b"\x72", Signature("ff" * 32, RFC_SIGNATURE))


@pytest.mark.usefixtures("cryptography")
def test_a_key_signs_and_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    public = signing.generate_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signature = signing.sign(b"manifest", path)
    assert signature.key == public
    assert signing.is_valid(b"manifest", signature)
    with pytest.raises(ConfigError, match="A key is never overwritten"):
        signing.generate_key(path)
    assert signing.sign(b"manifest", path) == signature


@pytest.mark.usefixtures("cryptography")
def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    def pem(key: object, encryption: object) -> bytes:
        return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    locked = serialization.BestAvailableEncryption(b"secret")
    contents = {
        "text": b"no key",
        "password": pem(ed25519.Ed25519PrivateKey.generate(), locked),
        "other": pem(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "nowhere"):
        with pytest.raises(ArtifactError, match=name):
            signing.sign(b"manifest", tmp_path / name)


def test_a_list_of_trusted_keys_may_hold_notes(tmp_path: Path) -> None:
    path = tmp_path / "trusted"
    path.write_text(f"# who builds our models\n\n{'ab' * 32}  # Ada\n{'cd' * 32}\n")
    assert signing.read_trusted_keys(path) == {"ab" * 32, "cd" * 32}
    for content in ("# nobody\n", "", "AB" * 32, "ab" * 31, "\udcff"):
        path.write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ArtifactError, match="trusted"):
            signing.read_trusted_keys(path)
    with pytest.raises(ArtifactError):
        signing.read_trusted_keys(tmp_path / "nowhere")


@pytest.fixture
def signed(tmp_path: Path, cryptography: None) -> tuple[Store, str, str]:
    """A store with one signed model, its digest, and the key."""
    store = Store(tmp_path / "store")
    digest = add_files(store, tmp_path / "model", {"a": b"abc"})
    key = signing.generate_key(tmp_path / "key.pem")
    store.put_signature(digest, signing.sign(store.manifest_bytes(digest), tmp_path / "key.pem"))
    return store, digest, key


def test_what_a_trusted_key_signed_is_handed_out_and_sent_with_its_signature(
    signed: tuple[Store, str, str], tmp_path: Path
) -> None:
    store, digest, key = signed
    target = Store(tmp_path / "target")
    transfer(store, target, digest, trusted={key, "ab" * 32})
    assert target.signatures(digest) == store.signatures(digest)
    target.checkout(digest, tmp_path / "out", trusted=[key])
    assert read_files(tmp_path / "out") == {"a": b"abc"}


@pytest.mark.parametrize("harm", ["nobody is trusted", "another key", "unsigned", "bad", "swapped"])
def test_what_no_trusted_key_signed_is_neither_handed_out_nor_sent(
    signed: tuple[Store, str, str],
    tmp_path: Path,
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, digest, key = signed
    trusted = {"nobody is trusted": [], "another key": ["ab" * 32]}.get(harm, [key])
    if harm == "unsigned":
        digest = add_files(store, tmp_path / "other", {"a": b"other"})
    if harm == "bad":
        store.put_signature(digest, Signature(key, "00" * 64))
    if harm == "swapped":
        signature = store.signatures(digest)[0]
        digest = add_files(store, tmp_path / "other", {"a": b"other"})
        store.put_signature(digest, signature)
    target = Store(tmp_path / "target")
    with pytest.raises(ArtifactRefused, match="signature"):
        transfer(store, target, digest, trusted=trusted)
    with pytest.raises(ArtifactRefused, match="signature"):
        store.checkout(digest, tmp_path / "out", trusted=trusted)
    assert visible(target) == ([], {})
    assert blobs(target) == []
    assert not (tmp_path / "out").exists()
    assert len(caplog.messages) == 2


def test_several_keys_sign_one_artifact_and_a_new_signature_replaces_the_old(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "store")
    digest = add_files(store, tmp_path / "model", {"a": b"abc"})
    first, second = Signature("ab" * 32, "00" * 64), Signature("cd" * 32, "00" * 64)
    store.put_signature(digest, second)
    store.put_signature(digest, first)
    assert store.signatures(digest) == [first, second]
    renewed = Signature(first.key, "11" * 64)
    store.put_signature(digest, renewed)
    assert store.signatures(digest) == [renewed, second]
    with pytest.raises(NotInStoreError):
        store.put_signature(digest_of(b"nobody"), first)


def test_signatures_go_with_their_artifact_and_damaged_ones_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest = add_files(store, tmp_path / "model", {"a": b"abc"})
    store.put_signature(digest, Signature("ab" * 32, "00" * 64))
    path = store.signature_folder(digest) / ("ab" * 32)
    os.chmod(path, 0o644)
    path.write_bytes(b"{}")
    with pytest.raises(ArtifactRefused, match="signature"):
        store.signatures(digest)
    assert len(store.verify().problems) == 1
    store.collect_garbage(0)
    assert not path.exists()
