"""The directions of imports, proved on the syntax of every file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("models", "training", "preprocessing", "pipelines")
MAY_IMPORT = {
    "models": {"models"},
    "training": {"training", "models"},
    "preprocessing": {"preprocessing", "models"},
    "pipelines": set(PACKAGES),
}
ENGINES = {
    "ray": ("pipelines/", "preprocessing/shards.py", "training/backends/ray_train.py"),
    "mlflow": ("pipelines/registry.py", "pipelines/served/", "training/tracking/mlflow.py"),
    "dvc": (),
    "decord": ("preprocessing/video",),
    "ffmpeg": ("preprocessing/video",),
}
THIRD_PARTY = {
    "models": {"torch", "numpy", "safetensors", "onnx", "onnxscript"},
    "training": {"torch", "numpy", "safetensors", "pyarrow", "cv2", "fsspec", "rich", "psutil", "ray", "mlflow"},
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} must import by absolute names"
            yield node.lineno, node.module or ""


def sources(root: Path) -> list[Path]:
    files = [root / "cli.py", *(p for name in PACKAGES for p in sorted((root / name).rglob("*.py")))]
    assert len(files) > 30
    return files


def all_imports(root: Path) -> list[tuple[str, int, str]]:
    return [(str(p.relative_to(root)), line, name) for p in sources(root) for line, name in imports(p)]


def test_packages_import_only_downwards(root: Path) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, line, name in all_imports(root)
        if (top := path.split("/")[0]) in MAY_IMPORT
        and (target := name.split(".")[0]) in (*PACKAGES, "cli")
        and target not in MAY_IMPORT[top]
    ]
    assert wrong == []


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_engines_are_named_in_their_places_only(root: Path, engine: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, line, name in all_imports(root)
        if name.split(".")[0] == engine and not path.startswith(ENGINES[engine])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(THIRD_PARTY))
def test_a_bare_gpu_box_is_enough(root: Path, package: str) -> None:
    allowed = THIRD_PARTY[package] | set(PACKAGES) | set(sys.stdlib_module_names)
    wrong = [
        f"{path}:{line} imports {name}"
        for path, line, name in all_imports(root)
        if path.startswith(f"{package}/") and name.split(".")[0] not in allowed
    ]
    assert wrong == []


def test_the_served_model_imports_nothing_of_the_project(root: Path) -> None:
    served = sorted((root / "pipelines" / "served").rglob("*.py"))
    names = {name.split(".")[0] for path in served for _, name in imports(path)}
    assert names.isdisjoint({*PACKAGES, "cli"})
    assert names - set(sys.stdlib_module_names) <= {"mlflow", "numpy", "onnxruntime", "PIL"}


def test_the_command_line_imports_nothing_heavy_at_start(root: Path) -> None:
    tree = ast.parse((root / "cli.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    third_party = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert third_party <= {"typer", "pipelines"}
