"""The arrows between the folders, read from the sources.

`bwe_env` stands alone; `baselines` and `agents` see its public names and not each other;
`experiments` sees everything and nobody sees it; the simulator does not know Gymnasium.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bwe_env", "baselines", "agents", "experiments")

#: What `import bwe_env` may need, and what it may need only inside a function.
BWE_ENV_MAY_IMPORT = {"bwe_env", "numpy", "numba", "llvmlite", "gymnasium"}  # llvmlite: of numba
BWE_ENV_MAY_IMPORT_LAZILY = BWE_ENV_MAY_IMPORT | {"PIL"}


def sources(folder: str) -> list[Path]:
    """Every Python file of a top-level folder (or of a folder inside it)."""
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None, bool]]:
    """(module, name or None, at top level) of every import statement of a file."""
    tree = ast.parse(path.read_text())
    top_level = {id(node) for node in tree.body}
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, id(node) in top_level
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            for alias in node.names:
                yield module, alias.name, id(node) in top_level


def offences(folder: str, is_allowed: object) -> list[str]:
    """Imports of a folder that `is_allowed(module, name, at_top_level)` refuses."""
    return [
        f"{path.relative_to(ROOT)}: {module}" + (f".{name}" if name else "")
        for path in sources(folder)
        for module, name, at_top_level in imports(path)
        if not is_allowed(module, name, at_top_level)  # type: ignore[operator]
    ]


def root_of(module: str) -> str:
    return module.split(".")[0]


def is_public(module: str, name: str | None) -> bool:
    """A name of `bwe_env` that is nobody's inside: no `_name`, nothing of the compiled core."""
    parts = module.split(".") + ([name] if name else [])
    is_core = len(parts) > 1 and parts[:2] == ["bwe_env", "sim"]
    return not is_core and not any(part.startswith("_") for part in parts)


def test_every_folder_of_the_map_exists_and_is_read_by_these_tests() -> None:
    assert all(sources(folder) for folder in FOLDERS)


def test_bwe_env_imports_only_numpy_numba_gymnasium_and_the_standard_library() -> None:
    def is_allowed(module: str, name: str | None, at_top_level: bool) -> bool:
        allowed = BWE_ENV_MAY_IMPORT if at_top_level else BWE_ENV_MAY_IMPORT_LAZILY
        return root_of(module) in allowed or root_of(module) in sys.stdlib_module_names

    assert offences("bwe_env", is_allowed) == []


@pytest.mark.parametrize("folder", ["bwe_env/sim", "bwe_env/gcc"])
def test_the_compiled_core_never_imports_gymnasium(folder: str) -> None:
    assert offences(folder, lambda module, name, top: root_of(module) != "gymnasium") == []


@pytest.mark.parametrize("folder", ["baselines", "agents"])
def test_baselines_and_agents_use_only_public_names_of_bwe_env(folder: str) -> None:
    def is_allowed(module: str, name: str | None, at_top_level: bool) -> bool:
        return root_of(module) != "bwe_env" or is_public(module, name)

    assert offences(folder, is_allowed) == []


@pytest.mark.parametrize(("folder", "other"), [("baselines", "agents"), ("agents", "baselines")])
def test_baselines_and_agents_never_import_each_other(folder: str, other: str) -> None:
    assert offences(folder, lambda module, name, top: root_of(module) != other) == []


@pytest.mark.parametrize("folder", ["bwe_env", "baselines", "agents"])
def test_nothing_imports_experiments_or_tests(folder: str) -> None:
    inside = ("experiments", "tests")
    assert offences(folder, lambda module, name, top: root_of(module) not in inside) == []


def test_the_checker_refuses_what_it_should_refuse() -> None:
    assert is_public("bwe_env.config", "CallConfig")
    assert is_public("bwe_env", "BandwidthEstimationVectorEnv")
    assert not is_public("bwe_env.sim.link", "LINK")
    assert not is_public("bwe_env", "sim")
    assert not is_public("bwe_env.config", "_require")


def test_importing_bwe_env_leaves_heavy_packages_alone() -> None:
    heavy = ("numba", "torch", "matplotlib", "stable_baselines3", "PIL", "tyro", "scipy")
    script = (
        "import sys, bwe_env\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
        "import gymnasium\n"
        "gymnasium.spec('BandwidthEstimation-v0')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
