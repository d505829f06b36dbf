"""Errors that tell the reader how to mend.

Every class is also a `ValueError` or `RuntimeError`, so that callers who know nothing of this
package still catch them by the usual names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BweEnvError(Exception):
    """Root of everything this project raises on purpose."""


class TraceFormatError(BweEnvError, ValueError):
    """A capacity trace cannot be read or means nothing (empty, negative, NaN, not increasing)."""


class CallLogFormatError(BweEnvError, ValueError):
    """A log of a real call that cannot be read, or from which nothing can be learnt."""


class ConfigError(BweEnvError, ValueError):
    """An option has a value outside its range, or options contradict each other."""


class UnknownNameError(BweEnvError, ValueError):
    """A name (estimator, split, option, directory) that nobody registered."""


class ActionError(BweEnvError, ValueError):
    """An action of the wrong shape, or NaN."""


class RingOverflowError(BweEnvError, RuntimeError):
    """A ring of the compiled core would have overwritten a row that is still needed."""


class DisplayError(BweEnvError, RuntimeError):
    """There is no screen to open a window on."""


class ArtifactError(BweEnvError, ValueError):
    """A checkpoint or run directory that is missing, damaged, or of another environment version."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """An `UnknownNameError` that lists the known names and points at the nearest one.

    Args:
        kind: what the name should have named, e.g. ``"estimator"``.
        name: what was given.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
