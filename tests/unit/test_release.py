"""The changelog and the bill of materials of a release."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.release import bundled, dated

ROOT = Path(__file__).parents[2]
OLD = "## 0.1.0 (2026-01-02)\n\n- A change.\n"


def test_unreleased_changes_become_those_of_the_version() -> None:
    once = dated("# Changelog\n\n## Unreleased\n\n- Unreleased\n", "0.1.0", "2026-01-02")
    assert once == "# Changelog\n\n## 0.1.0 (2026-01-02)\n\n- Unreleased\n"
    assert dated(once, "0.1.0", "2026-03-04") == once


@pytest.mark.parametrize(
    ("changelog", "version", "problem"),
    [(f"## Unreleased\n\n{OLD}", "0.1.0", "raise __version__"), (OLD, "0.2.0", "neither"), (OLD, "0x1.0", "neither")],
)
def test_a_changelog_that_does_not_fit_is_refused(changelog: str, version: str, problem: str) -> None:
    with pytest.raises(SystemExit, match=problem):
        dated(changelog, version, "2026-03-04")


def test_the_bill_of_materials_has_the_bundles_packages() -> None:
    components = bundled(json.loads((ROOT / "ui/package-lock.json").read_text()))
    licences = (ROOT / "airflow_provider_aixplain/ui/static/LICENSES.txt").read_text()
    named = [f"{item['name']} {item['version']} ({item['licenses'][0]['license']['id']})" for item in components]
    assert named == re.findall(r"^\S+ [\d.]+ \(\S+\)$", licences, re.MULTILINE)
    assert components[0]["purl"] == "pkg:npm/%40kurkle/color@0.3.4"
    assert {(item["hashes"][0]["alg"], len(item["hashes"][0]["content"])) for item in components} == {("SHA-512", 128)}
