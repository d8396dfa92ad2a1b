"""The emulator has every model and agent that the documentation and the example DAGs name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from tests.support.deployment import Emulator
from tests.support.documentation import ROOT

TEXTS = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted((ROOT / "example_dags").glob("*.py")))
NO_ASSETS = {"000000000000000000000000": "stands for no model: a test of a Connection expects that it does not exist"}

_ARGUMENT = re.compile(r"""\b(?:model|agent)_id["']?\s*[:=]\s*f?["']([^"'{]+)["']""")
_CALL = re.compile(r"""(?:[hH]ook(?:\(\))?\.\w+|\bModel|ModelFactory\.get)\(\s*["']([^"'{:]+)["']""")


def ids_in(path: Path) -> set[str]:
    """The literal ids of models and agents in a text."""
    text = path.read_text(encoding="utf-8")
    return {name for kind in (_ARGUMENT, _CALL) for name in kind.findall(text)} - set(NO_ASSETS)


@pytest.mark.parametrize("path", [path for path in TEXTS if ids_in(path)], ids=lambda path: path.stem)
def test_every_id_in_the_texts_is_known(emulator: Emulator, path: Path) -> None:
    def is_known(asset_id: str) -> bool:
        pages = [f"{emulator.url}/discover/{kind}/{asset_id}" for kind in ("model", "agent")]
        return any(requests.get(page, timeout=10).ok for page in pages)

    assert [asset_id for asset_id in sorted(ids_in(path)) if not is_known(asset_id)] == []


def test_ids_are_found_in_the_texts() -> None:
    found = {name for path in TEXTS for name in ids_in(path)}
    assert {"sentiment", "tuned", "review-analyst"} <= found
