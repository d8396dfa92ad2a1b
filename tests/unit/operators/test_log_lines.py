"""Lines for a task's log."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.operators.log_lines import LineBuffer


def test_text_is_cut_at_line_ends_and_long_lines() -> None:
    lines = LineBuffer(width=10)
    assert lines.add("one ") == []
    assert lines.add("two\nthree") == ["one two"]
    assert lines.add(" four five") == ["three four"]
    assert lines.end() == ["five"]
    assert LineBuffer().end() == []


def test_control_characters_forge_no_lines() -> None:
    lines = LineBuffer()
    assert lines.add("a\tb\r\n\x1b[31mred\x85\u2028next\x00") == ["a b"]
    assert lines.end() == [" [31mred  next"]


@pytest.mark.parametrize("word", ["a", "a ", " ", "-", "世", "\t"])
@pytest.mark.parametrize("pieces", [1, 100])
def test_one_very_long_line_takes_linear_time(word: str, pieces: int) -> None:
    """Both are far from the time of textwrap, which takes seconds for the first."""

    def seconds(size: int) -> float:
        lines, piece = LineBuffer(), word * (size // pieces)
        start = time.process_time()
        for _ in range(pieces):
            assert all(len(line) <= 120 for line in lines.add(piece))
        return time.process_time() - start

    assert min(seconds(800_000) for _ in range(3)) < 10 * max(min(seconds(200_000) for _ in range(3)), 0.001)


@given(st.lists(st.text(st.sampled_from("ab \n")), max_size=9))
def test_no_word_is_lost(pieces: list[str]) -> None:
    lines = LineBuffer(width=9)
    shown = [line for piece in pieces for line in lines.add(piece)] + lines.end()
    assert "".join("".join(shown).split()) == "".join("".join(pieces).split())
    assert all(len(line) <= 9 for line in shown)
