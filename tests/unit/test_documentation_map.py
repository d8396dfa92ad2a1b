"""The maps of the code in CONTRIBUTING.md and docs/design.md agree with the tree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_aixplain"
MAP = re.compile(r"^## Where things are\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAYERS = re.compile(r"^## Layers\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def package_entries() -> set[str]:
    """The folders (``batch/``) and modules (``model.py``) directly in the package."""
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
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


def test_every_path_in_the_contributing_map_exists() -> None:
    paths = [path for parent, names in mapped_paths().items() for path in (parent, *(parent + name for name in names))]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_contributing_map_lists_the_whole_package_once() -> None:
    listed = mapped_paths()[f"{PACKAGE.name}/"]
    assert sorted(listed) == sorted(package_entries())


def test_the_layer_table_lists_the_whole_package_once() -> None:
    rows = re.findall(r"^\| \d+ \| ([^|]*)\|", read_section("docs/design.md", LAYERS), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(listed) == sorted(package_entries())
