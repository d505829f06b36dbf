"""Which paths a stored file may have: one meaning on every system, and none outside its folder.

An artifact made on one machine is checked out on another, so that the rules are those of the
strictest: names that Windows keeps for devices, that macOS spells otherwise (Unicode NFD), or that
two file systems disagree about (case) are refused when the artifact is made, not when it is needed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

#: Bytes of one name in UTF-8: NAME_MAX of ext4 and APFS. NTFS counts 255 UTF-16 units.
MAX_NAME_BYTES = 255
#: Bytes of a whole path. PATH_MAX is 4096 on Linux; the folder it is put into needs room. Ours.
MAX_PATH_BYTES = 1024
#: Folders a file may be in. Ours.
MAX_PATH_DEPTH = 16
#: Not allowed in names by Windows ("Naming Files, Paths, and Namespaces", Microsoft Learn).
FORBIDDEN_CHARACTERS = frozenset('<>:"|?*\\')
#: Device names of Windows, whatever follows the first dot (same source; superscripts count too).
DEVICE_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
)


def path_fault(path: str) -> str | None:
    """What is wrong with a member's path, as "must …"; None if nothing is."""
    if not path or path.startswith("/"):
        return "must be relative to the artifact's folder, without a leading '/'"
    if not is_plain_text(path):
        return "must be text in Unicode NFC without control characters"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"must not be longer than {MAX_PATH_BYTES} bytes"
    names = path.split("/")
    if len(names) > MAX_PATH_DEPTH:
        return f"must not be deeper than {MAX_PATH_DEPTH} levels"
    for name in names:
        fault = name_fault(name)
        if fault is not None:
            return fault
    return None


def name_fault(name: str) -> str | None:
    """What is wrong with one name of a path, as "must …"; None if nothing is."""
    if name in ("", ".", ".."):
        return "must not hold '..', '.' or an empty name: it stays in the artifact's folder"
    if FORBIDDEN_CHARACTERS & set(name):
        return 'must use "/" between folders and none of < > : " | ? * \\ (drive letters neither)'
    if name[-1] in ". ":
        return "must not hold a name that ends with a dot or a space (Windows drops them)"
    if name.split(".")[0].rstrip(" ").upper() in DEVICE_NAMES:
        return "must not hold a device name of Windows (CON, NUL, COM1, …)"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"must not hold a name longer than {MAX_NAME_BYTES} bytes"
    return None


def is_plain_text(text: str) -> bool:
    """Whether text is NFC, without control characters and lone surrogates."""
    if not unicodedata.is_normalized("NFC", text):
        return False
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def clashing_paths(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two paths that cannot stand side by side on every file system; None if there are none.

    Equal ones, ones that differ in case alone (also of a folder in front), and a file that is
    another file's folder.
    """
    spelling: dict[str, str] = {}
    files: dict[str, None] = {}
    for path in paths:
        for part in (*folders_of(path), path):
            known = spelling.setdefault(_case_key(part), part)
            if known != part:
                return known, path
        if path in files:
            return path, path
        files[path] = None
    for path in files:
        for folder in folders_of(path):
            if folder in files:
                return folder, path
    return None


def folders_of(path: str) -> list[str]:
    """The folders that a file is in, outermost first: a, a/b for a/b/c."""
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]


def _case_key(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())
