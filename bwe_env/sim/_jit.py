"""The decorators for compiled code, `kernel` and `entry`, and the record types it works on.

Two traps of numba's on-disk cache are closed here. `cache=True` notices an edit only in the file
that holds the decorated function, although LLVM inlines callees from other files: so the cache
folder is keyed by a hash of every source of the package. And numba reads `CACHE_DIR` from a global
setting: it is set only while a function is being decorated and restored at once, so that a user's
own kernels keep their own cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.registry import CPUDispatcher

F = TypeVar("F", bound=Callable[..., Any])

#: A row of a structured array, or one of its sub-records; numba types it exactly, Python cannot.
Record = Any

#: "Never" for int64 microsecond timers: far beyond any call, and `NEVER + delay` still fits.
NEVER = 1 << 62

_PACKAGE = Path(__file__).resolve().parent.parent


#: Modules that no kernel reads anything from; an edit there keeps the compiled code.
_NOT_COMPILED = ("trace/", "env.py", "vector_env.py", "render.py", "rollout.py", "estimator.py")


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if name.startswith(_NOT_COMPILED):
            continue
        digest.update(name.encode())
        digest.update(path.read_bytes())
    versions = (numba.__version__, np.__version__, sys.version, platform.machine())
    digest.update(repr(versions).encode())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    configured = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    root = Path(configured) if configured else Path.home() / ".cache"
    return root / "bwe_env" / "kernels"


def _usable_cache_directory() -> Path:
    """The kernel cache of exactly these sources; a temporary folder where home is read-only."""
    name = _sources_digest()
    for root in (_cache_root(), Path(tempfile.gettempdir()) / f"bwe_env-kernels-{os.getuid()}"):
        directory = root / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    return Path(tempfile.mkdtemp(prefix="bwe_env-kernels-"))


CACHE_DIRECTORY = _usable_cache_directory()


def _compile(function: F, *, cache: bool, **options: bool) -> F:
    """`numba.njit` with this project's options and cache folder.

    Division follows IEEE (`x / 0` is `inf`, as in NumPy, not an exception); kernels guard with
    `if` all the same, because plain Python (`NUMBA_DISABLE_JIT=1`) raises. The GIL is released, so
    that two halves of a batch of environments can run on two threads.
    """
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE_DIRECTORY)
    try:
        compiled = numba.njit(cache=cache, nogil=True, error_model="numpy", **options)(function)
    finally:
        numba.config.CACHE_DIR = previous
    return compiled  # type: ignore[no-any-return]


def entry(function: F) -> F:
    """Compile a function that Python calls: cached on disk, its callees with it."""
    return _compile(function, cache=True)


class _Kernel(CPUDispatcher):  # type: ignore[misc]
    """A kernel for other kernels. Compiling it costs a third of what an entry costs.

    It has no Python wrapper and no cache file of its own: it is compiled into the entries that
    reach it. And a constant argument is typed as its plain type: numba would otherwise compile one
    more copy for every constant that a function is called with.
    """

    def get_call_template(self, args: Any, kws: Any) -> Any:
        plain = {name: numba.types.unliteral(value) for name, value in kws.items()}
        return super().get_call_template(tuple(map(numba.types.unliteral, args)), plain)

    def __call__(self, *args: Any) -> Any:
        if "_entry" not in self.__dict__:
            self._entry = entry(self.py_func)
        return self._entry(*args)


def kernel(function: F) -> F:
    """Compile a free function over records and arrays, to be called by other compiled code.

    Python may call it, too (tests do); it is then compiled once more as an `entry`.
    """
    compiled = _compile(function, cache=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    if isinstance(compiled, CPUDispatcher):  # plain Python with NUMBA_DISABLE_JIT=1
        compiled.__class__ = _Kernel
    return compiled


def record(fields: Sequence[tuple[Any, ...]]) -> np.dtype[Any]:
    """An aligned record dtype whose rows have attribute access with the compiler off, too.

    Args:
        fields: ``(name, dtype)`` or ``(name, dtype, shape)``; a dtype may be another record. Use
            `"i8"` for whatever takes part in arithmetic (smaller integers promote differently with
            the compiler on and off), `"f8"` for every float, `"i1"` for flags and states.
    """
    # NumPy gives a nested np.record an alignment of 1; laid out by hand, every field is aligned.
    names, formats, offsets = [], [], []
    end = 0
    for name, *description in fields:
        dtype = np.dtype(tuple(description)) if len(description) > 1 else np.dtype(description[0])
        alignment = 8 if dtype.base.fields is not None else dtype.base.alignment
        offset = -(-end // alignment) * alignment
        names.append(name)
        formats.append(dtype)
        offsets.append(offset)
        end = offset + dtype.itemsize
    layout = {
        "names": names,
        "formats": formats,
        "offsets": offsets,
        "itemsize": -(-end // 8) * 8,
        "aligned": True,
    }
    return np.dtype((np.record, np.dtype(layout)))
