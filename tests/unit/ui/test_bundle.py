"""The committed bundle of the page in Airflow's UI, which ``make ui`` builds."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
UI = ROOT / "ui"
STATIC = ROOT / "airflow_provider_aixplain" / "ui" / "static"


def hash_sources() -> str:
    """What ``ui/build.mjs`` computes: each path and its content."""
    names = [*(f"src/{path.name}" for path in (UI / "src").iterdir()), "build.mjs", "package-lock.json"]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + b"\0" + (UI / name).read_bytes() + b"\0")
    return digest.hexdigest()


def test_the_bundle_was_built_from_the_present_sources() -> None:
    head = (STATIC / "aixplain.js").read_text(encoding="utf-8")[:300]
    found = re.search(r"sha256 (\w{64})", head)
    assert found, "the bundle does not state its sources"
    assert found[1] == hash_sources(), "the bundle is stale: run make ui, and commit what it builds"


def test_the_licences_name_the_bundled_versions() -> None:
    licences = (STATIC / "LICENSES.txt").read_text(encoding="utf-8")
    locked = json.loads((UI / "package-lock.json").read_text())["packages"]
    for name in json.loads((UI / "package.json").read_text())["dependencies"]:
        assert f"{name} {locked[f'node_modules/{name}']['version']} (" in licences


def test_the_lock_file_names_no_registry() -> None:
    assert "://" not in re.sub(r'"url": "[^"]*"', "", (UI / "package-lock.json").read_text())


def test_the_bundle_stays_small() -> None:
    assert (STATIC / "aixplain.js").stat().st_size < 300_000
