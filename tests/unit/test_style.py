"""The style check fails on a planted word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style import findings


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("What it Told the user", "Told"),
        ("def _told_value() -> None:", "told"),
        ("it goes on with the run", "goes on with"),
        ("sent as it is.", "as it is"),
        ("AT_A_TIME = 16", "AT_A_TIME"),
        ("engine.LAG = 0.5", "LAG"),
    ],
)
def test_a_word_of_the_list_is_found(tmp_path: Path, line: str, word: str) -> None:
    package = "airflow_provider_aixplain"
    for name in ("docs/page.md", f"{package}/batch/module.py", f"{package}/example_dags/data/review.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"First line\n{line}\n")
    (tmp_path / "Makefile").write_text(line)
    found = [finding.partition(" ->")[0] for finding in findings(tmp_path)]
    assert found == [
        f"{package}/batch/module.py:2: {word}",
        f"docs/page.md:2: {word}",
        f"Makefile:1: {word}",
    ]


@pytest.mark.parametrize(
    "line", ["newsletter", "recommended", "the file is sent as it is written", "untold", "heart", "FLAG = 1"]
)
def test_longer_words_are_accepted(tmp_path: Path, line: str) -> None:
    (tmp_path / "Makefile").write_text(line)
    assert list(findings(tmp_path)) == []
