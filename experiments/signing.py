"""Who vouches for an artifact: Ed25519 signatures (RFC 8032) over the bytes of its manifest.

The manifest holds the digest of every file, so that one signature covers all of them. It does not
say that an artifact is the newest: an older one with a good signature stays good. Keys are named by
the public key in 64 hexadecimal digits; a private key is a PEM file (PKCS #8, RFC 5958) without a
password, readable by its owner alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bwe_env.errors import ArtifactError, ConfigError
from experiments.canonical_json import canonical_json, parse_json
from experiments.refusals import refuse

FORMAT = "bwe-env signature 1"
KEY_PATTERN = re.compile(r"[0-9a-f]{64}")
#: Ed25519 signatures have 64 bytes (RFC 8032 §5.1.6).
SIGNATURE_PATTERN = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True)
class Signature:
    """One key's word for one manifest; whether it is true is found by `check_signed`."""

    key: str
    """the public key, 64 hexadecimal digits"""
    signature: str
    """128 hexadecimal digits"""

    def __post_init__(self) -> None:
        check_key(self.key, "signature key")
        if not isinstance(self.signature, str) or not SIGNATURE_PATTERN.fullmatch(self.signature):
            refuse("signature", self.signature, "must be 128 lower-case hexadecimal digits")

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json({"format": FORMAT, "key": self.key, "signature": self.signature})

    @classmethod
    def from_bytes(cls, data: bytes) -> Signature:
        """The signature that `to_bytes` wrote.

        Raises:
            ArtifactRefused: anything else.
        """
        content = parse_json(data)
        if not isinstance(content, dict) or set(content) != {"format", "key", "signature"}:
            refuse("signature", content, "must have exactly the keys format, key, signature")
        if content["format"] != FORMAT:
            refuse("signature format", content["format"], f"must be {FORMAT!r}")
        return cls(content["key"], content["signature"])


def check_key(key: object, where: str) -> str:
    """The text, if it can be a public key.

    Raises:
        ArtifactRefused: it cannot.
    """
    if not isinstance(key, str) or KEY_PATTERN.fullmatch(key) is None:
        refuse(where, key, "must be a public key of 64 lower-case hexadecimal digits")
    return key


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigError(
            'signatures need one more package: pip install -c constraints.txt -e ".[sign]"'
        ) from error
    return ed25519


def generate_key(path: str | Path) -> str:
    """Write a new private key, and return its public key.

    Raises:
        ConfigError: the file exists, its folder cannot be written, or a package is missing.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    key = ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made: {error.strerror}. A key is never overwritten; give a new name."
        ) from error
    return _public_text(key)


def _public_text(private_key: Any) -> str:
    return str(private_key.public_key().public_bytes_raw().hex())


def sign(data: bytes, key_path: str | Path) -> Signature:
    """A signature over the bytes of a manifest.

    Raises:
        ArtifactError: the key cannot be read.
        ConfigError: a package is missing.
    """
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(key_path).read_bytes(), password=None)
    except OSError as error:
        raise ArtifactError(f"{key_path} cannot be read: {error.strerror}.") from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"{key_path} is no private key without a password; make one with "
            "python -m experiments.store keygen."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ArtifactError(f"{key_path} holds another kind of key; Ed25519 is needed.")
    return Signature(_public_text(key), key.sign(data).hex())


def is_valid(data: bytes, signature: Signature) -> bool:
    """Whether the key of a signature has signed these bytes.

    Raises:
        ConfigError: a package is missing.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        public.verify(bytes.fromhex(signature.signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_signed(data: bytes, signatures: Iterable[Signature], trusted: Collection[str]) -> str:
    """The first trusted key that has signed these bytes.

    Args:
        data: of the manifest.
        signatures: those beside it.
        trusted: public keys, 64 hexadecimal digits each.

    Raises:
        ArtifactRefused: none has, or a trusted key's signature is not one over these bytes.
        ConfigError: a package is missing.
    """
    by_key = {signature.key: signature for signature in signatures}
    for key in sorted(set(trusted) & set(by_key)):
        if not is_valid(data, by_key[key]):
            remedy = "Get artifact and signature again from who signed it."
            refuse(f"signature of {key}", by_key[key].signature, "must fit the manifest", remedy)
        return key
    return refuse(
        "signature",
        sorted(by_key),
        f"must be of one of {len(trusted)} trusted keys",
        "Sign it with python -m experiments.store sign, or add the key to the list of trusted ones "
        "if you know whose it is.",
    )


def read_trusted_keys(path: str | Path) -> frozenset[str]:
    """Public keys of a text file, one per line; what follows a "#" is a note.

    Raises:
        ArtifactError: the file cannot be read, holds no key, or something else than keys.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read as a list of keys: {error}.") from error
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    keys = frozenset(check_key(line, f"{path}") for line in lines if line)
    if not keys:
        raise ArtifactError(f"{path} holds no key; write one public key per line.")
    return keys
