"""The house's rules, read from the source: who may import whom, and that every package is installed."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("costmodel", "planner", "executor", "kernels", "ui")
OURS = {"costmodel", "planner", "executor", "kernels", "parlay_kernels", "ui"}

ALLOWED: dict[str, set[str]] = {
    "costmodel/schema": {"costmodel", "pydantic"},
    "costmodel/calibration": {"costmodel", "numpy", "pydantic", "scipy"},
    "costmodel": {"costmodel", "numpy", "pydantic"},
    "planner/cli": {"planner", "costmodel", "executor", "typer"},
    "planner/report/scatter.py": {"planner", "costmodel", "matplotlib"},
    "planner/report/curve_plot.py": {"planner", "costmodel", "matplotlib"},
    "planner/report": {"planner", "costmodel", "rich"},
    "planner": {"planner", "costmodel", "numpy", "pulp", "highspy", "pydantic"},
    "executor": {"executor", "costmodel", "parlay_kernels", "torch", "triton", "numpy", "pydantic"},
    "kernels": {"parlay_kernels", "torch", "triton"},
    "ui/figures": {"ui", "planner", "costmodel", "plotly", "numpy"},
    "ui": {"ui", "planner", "costmodel", "streamlit", "plotly"},
}
"""Folder -> what its files may import beside the standard library. The longest entry that fits a file counts."""

Import = tuple[str, int, bool]
"""Dotted module name, line, whether it stands inside a function."""


def sources() -> list[Path]:
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(source: str) -> list[Import]:
    """Every import, those under ``if TYPE_CHECKING`` included: they are dependencies too."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.append(("." * child.level + (child.module or ""), child.lineno, inside))
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(source), False)
    return found


def folder_of(path: Path) -> str:
    return max((folder for folder in ALLOWED if path.is_relative_to(folder)), key=len)


def complaints(path: Path, source: str) -> list[str]:
    """Sentences about every import in ``source``, standing at ``path``, that the rules do not allow."""
    folder = folder_of(path)
    wrong = []
    for name, line, inside in imports_of(source):
        top = name.split(".")[0]
        where = f"{path}:{line} imports {name}"
        if not top:
            wrong.append(f"{where}: relative imports hide where a name comes from")
        elif top == "kernels":
            wrong.append(f"{where}: the folder kernels/ is imported as parlay_kernels")
        elif top in sys.stdlib_module_names:
            continue
        elif top not in ALLOWED[folder]:
            wrong.append(f"{where}: {folder} may import {', '.join(sorted(ALLOWED[folder]))}")
        elif folder == "costmodel/schema" and top == "costmodel" and not name.startswith("costmodel.schema"):
            wrong.append(f"{where}: the schema knows nothing but itself")
        elif folder == "planner/cli" and top == "executor" and not inside:
            wrong.append(f"{where}: only inside the command that needs it")
    return wrong


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_run_one_way(path: Path) -> None:
    assert not complaints(path, (ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("costmodel/schema/x.py", "import numpy"),
        ("costmodel/schema/x.py", "from costmodel.gemm import y"),
        ("costmodel/x.py", "import scipy.optimize"),
        ("costmodel/x.py", "def f():\n    import torch"),
        ("costmodel/x.py", "from planner import y"),
        ("planner/x.py", "import executor"),
        ("planner/cli/x.py", "from executor.launch import run_plan"),
        ("executor/x.py", "from planner.request import Request"),
        ("executor/x.py", "from kernels.rmsnorm import rms_norm"),
        ("kernels/x.py", "from costmodel.schema.errors import InvalidSpec"),
        ("ui/x.py", "if TYPE_CHECKING:\n    import torch"),
        ("planner/x.py", "from . import y"),
    ],
)
def test_the_rules_catch(path: str, source: str) -> None:
    assert len(complaints(Path(path), source)) == 1


def test_a_command_may_import_the_executor_when_it_runs() -> None:
    assert not complaints(Path("planner/cli/x.py"), "def f():\n    from executor.launch import run_plan")


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in sources() if path.name == "__init__.py"}
    names = {".".join(folder.parts).replace("kernels", "parlay_kernels", 1) for folder in folders}
    assert sorted(listed) == sorted(names)


def test_every_folder_with_code_is_a_package_that_says_what_it_is() -> None:
    for folder in {path.parent for path in sources()}:
        init = ROOT / folder / "__init__.py"
        assert init.exists(), folder
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), folder


def test_pins_cover_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["torch"], *extras["dev"]]
    names = {entry.split(">")[0].split("[")[0].lower() for entry in wanted} - {"parlay"}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in pins if "==" in line}
    assert names <= pinned
