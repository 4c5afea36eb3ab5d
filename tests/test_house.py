"""The house rules that a machine can check: layers, contracts, and what the wheel carries."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "tracer": {"tracer"},
    "hypervisor": {"tracer", "hypervisor"},
    "graphs": {"tracer", "graphs"},
    "studykvm": {"tracer", "hypervisor", "graphs", "studykvm"},
}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_its_layer_and_opens_with_a_contract(path):
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).parts[0]
    assert imported(tree) & MAY_IMPORT.keys() <= MAY_IMPORT[package]
    assert ast.get_docstring(tree)


def test_the_wheel_carries_all_modules_and_data(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    result = subprocess.run(build, capture_output=True, text=True)
    if "No matching distribution found for hatchling" in result.stderr:
        pytest.skip("the build backend cannot be downloaded: pip install hatchling, or connect to a registry")
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in MODULES} <= packed
    tracked = subprocess.run(["git", "ls-files", *MAY_IMPORT], cwd=ROOT, capture_output=True, text=True)
    assert set(tracked.stdout.split()) <= packed
