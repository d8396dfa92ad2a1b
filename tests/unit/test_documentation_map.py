"""The maps of the code in CONTRIBUTING.md and docs/design.md agree with the tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_aixplain"
MAP = re.compile(r"^## Where things are\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAYERS = re.compile(r"^## Layers\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def package_entries() -> set[str]:
    """The folders (``batch/``) and modules (``model.py``) directly in the package."""
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/*.py")}
    return folders | {path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}


def read_section(page: str, section: re.Pattern[str]) -> str:
    """The text that the pattern's group finds on a page."""
    found = section.search((ROOT / page).read_text(encoding="utf-8"))
    assert found, f"{page} has no such section"
    return found[1]


def mapped_paths() -> dict[str, list[str]]:
    """The paths in the map of CONTRIBUTING.md, relative to the line without indentation above them."""
    paths: dict[str, list[str]] = {}
    for line in read_section("CONTRIBUTING.md", MAP).splitlines():
        name = line.split()[0]
        if line.startswith("  "):
            paths[list(paths)[-1]].append(name)
        else:
            paths[name] = []
    return paths


def layers() -> dict[str, int]:
    """The row of each folder and module in the layer table; imports point to the same row or down."""
    rows = re.findall(r"^\| (\d+) \| ([^|]*)\|", read_section("docs/design.md", LAYERS), re.MULTILINE)
    return {name: int(row) for row, names in rows for name in re.findall(r"`([^`]+)`", names)}


def entry_of(path: Path) -> str:
    """The folder or module directly in the package that a path belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first if first.endswith(".py") else f"{first}/"


def imported_paths(module: Path) -> Iterator[Path]:
    """The modules of the package that a module imports, except those that only type checkers import."""
    nodes: list[ast.AST] = [ast.parse(module.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            path = ROOT.joinpath(*(node.module or "").split("."))
            yield from (path / alias.name for alias in node.names) if path.is_dir() else [path.with_suffix(".py")]


def test_every_path_in_the_contributing_map_exists() -> None:
    paths = [path for parent, names in mapped_paths().items() for path in (parent, *(parent + name for name in names))]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_contributing_map_lists_the_whole_package_once() -> None:
    listed = mapped_paths()[f"{PACKAGE.name}/"]
    assert sorted(listed) == sorted(package_entries())


def test_the_layer_table_lists_the_whole_package_once() -> None:
    names = re.findall(r"^\| \d+ \| ([^|]*)\|", read_section("docs/design.md", LAYERS), re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", " ".join(names))) == sorted(package_entries())


def test_imports_point_down_in_the_layer_table() -> None:
    rows = layers()
    upward = [
        f"{module.relative_to(PACKAGE)} imports {target.relative_to(PACKAGE)}"
        for module in sorted(PACKAGE.rglob("*.py"))
        if module.parent != PACKAGE or module.name != "__init__.py"
        for target in imported_paths(module)
        if target != PACKAGE / "client" / "account.py" and rows[entry_of(target)] < rows[entry_of(module)]
    ]
    assert not upward
