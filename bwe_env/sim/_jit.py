"""The decorators for compiled code, `kernel` and `entry`, and the record types it works on.

Two traps of numba's on-disk cache are closed here. `cache=True` notices an edit only in the file
that holds the decorated function, although LLVM inlines callees from other files: so the cache
folder is keyed by a hash of every source of the package. And numba reads `CACHE_DIR` from a global
setting: it is set only while a function is being decorated and restored at once, so that a user's
own kernels keep their own cache.
"""

from __future__ import annotations

import gc
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
from llvmlite.binding import Linkage
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher

F = TypeVar("F", bound=Callable[..., Any])

#: A row of a structured array, or one of its sub-records; numba types it exactly, Python cannot.
Record = Any

#: "Never" for int64 microsecond timers: far beyond any call, and `NEVER + delay` still fits.
NEVER = 1 << 62

_PACKAGE = Path(__file__).resolve().parent.parent


#: Modules that no kernel reads anything from; an edit there keeps the compiled code.
_NOT_COMPILED = (
    "trace/",
    "logs/",
    "action.py",
    "env.py",
    "errors.py",
    "feedback.py",
    "mmsys24.py",
    "truth.py",
    "vector_env.py",
    "render.py",
    "live_window.py",
    "rollout.py",
    "controllers.py",
    "competition.py",
    "external.py",
    "rfc8867.py",
    "scenario.py",
    "estimator.py",
    "sender_settings.py",
    "targeting.py",
    "targeted_gcc.py",
)


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


def _compile(function: F, *, cache: bool, **options: Any) -> F:
    """`numba.njit` with this project's options and cache folder.

    Division follows IEEE (`x / 0` is `inf`, as in NumPy, not an exception); kernels guard with
    `if` all the same, because plain Python (`NUMBA_DISABLE_JIT=1`) raises. The GIL is released, so
    that two halves of a batch of environments can run on two threads.
    """
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE_DIRECTORY)
    try:
        compiled = numba.njit(cache=cache, nogil=True, error_model="numpy", _nrt=False, **options)(
            function
        )
    finally:
        numba.config.CACHE_DIR = previous
    return compiled


class _KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of one kernel: not linked, not optimised and not turned into machine code.

    The entry that a kernel is linked into does all that, once for everything. numba would do it for
    every kernel by itself, with all that it calls, and again wherever that is called.
    """

    _shared_module: Any

    def _optimize_functions(self, ll_module: Any) -> None:
        pass

    def finalize(self) -> None:
        for library in self._linking_libraries:
            self._reload_init.update(library._reload_init)
        self._finalized = True

    def _callees(self, found: dict[Any, None]) -> dict[Any, None]:
        """All libraries this one needs, each once."""
        for library in self._linking_libraries:
            if library not in found:
                found[library] = None
                if isinstance(library, _KernelLibrary):
                    library._callees(found)
        return found

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            module = self._final_module.clone()
            for library in self._callees({}):
                is_kernel = isinstance(library, _KernelLibrary)
                code = library._final_module if is_kernel else library._get_module_for_linking()
                module.link_in(code, preserve=True)
            for function in module.functions:
                if not function.is_declaration and function.linkage == Linkage.external:
                    function.linkage = Linkage.linkonce_odr  # another kernel may bring it, too
            self._shared_module = module
        return self._shared_module


class _EntryLibrary(JITCodeLibrary):  # type: ignore[misc]
    """An entry with all its kernels, which nobody outside calls.

    Only then does LLVM drop arguments that a kernel does not use (numba passes an array as seven),
    and inline what is called from one place.
    """

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        super()._optimize_final_module()


class _Arguments(tuple[Any, ...]):
    """Argument types; numba prints them before every pass, a record with all its fields."""

    def __str__(self) -> str:
        return f"{len(self)} arguments"


class _EntryCompiler(Compiler):  # type: ignore[misc]
    """numba's pipeline, with the garbage collector at rest: a tenth of the time."""

    def compile_extra(self, func: Any) -> Any:
        self.state.args = _Arguments(self.state.args)
        self.state.library = _EntryLibrary(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(func)
        finally:
            if is_collecting:
                gc.enable()


class _KernelCompiler(Compiler):  # type: ignore[misc]
    """numba's pipeline up to LLVM code; what calls the kernel finds it by `entry_point`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state.flags.no_compile = True

    def compile_extra(self, func: Any) -> Any:
        context = self.state.targetctx
        self.state.args = _Arguments(self.state.args)
        self.state.library = _KernelLibrary(context.codegen(), func.__qualname__)
        result = super().compile_extra(func)
        result = result._replace(entry_point=lambda: None)
        context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


def entry(function: F) -> F:
    """Compile a function that Python calls: cached on disk, its callees with it."""
    return _compile(function, cache=True, no_cfunc_wrapper=True, pipeline_class=_EntryCompiler)


class _Kernel(CPUDispatcher):  # type: ignore[misc]
    """A kernel for other kernels. Compiling it costs a third of what an entry costs.

    It has no Python wrapper and no cache file of its own: it is compiled into the entries that
    reach it. And a constant argument is typed as its plain type: numba would otherwise compile one
    more copy for every constant that a function is called with.
    """

    def get_call_template(self, args: Any, kws: Any) -> Any:
        plain = {name: numba.types.unliteral(value) for name, value in kws.items()}
        return super().get_call_template(tuple(map(numba.types.unliteral, args)), plain)

    def add_overload(self, cres: Any) -> None:
        self.overloads[tuple(cres.signature.args)] = cres  # nothing for Python to call

    def __call__(self, *args: Any) -> Any:
        if "_entry" not in self.__dict__:
            self._entry = entry(self.py_func)
        return self._entry(*args)


def kernel(function: F, **options: Any) -> F:
    """Compile a free function over records and arrays, to be called by other compiled code.

    Python may call it, too (tests do); it is then compiled once more as an `entry`.
    """
    compiled = _compile(
        function,
        cache=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        pipeline_class=_KernelCompiler,
        **options,
    )
    if isinstance(compiled, CPUDispatcher):  # plain Python with NUMBA_DISABLE_JIT=1
        compiled.__class__ = _Kernel
    return compiled


def inline_kernel(function: F) -> F:
    """A kernel so large that LLVM would call it, where calling costs more than what it does."""
    return kernel(function, forceinline=True)


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
    layout: Any = {
        "names": names,
        "formats": formats,
        "offsets": offsets,
        "itemsize": -(-end // 8) * 8,
        "aligned": True,
    }
    return np.dtype((np.record, np.dtype(layout)))
