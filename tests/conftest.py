"""Settings for every test."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run; no deadline, because the first call of a kernel compiles it.
settings.register_profile("bwe_env", deadline=None, derandomize=True)
settings.load_profile("bwe_env")
