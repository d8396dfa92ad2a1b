"""Lines for a task's log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.operators.log_lines import Lines


def test_at_line_ends_and_where_they_grow_too_long() -> None:
    lines = Lines(width=10)
    assert lines.add("one ") == []
    assert lines.add("two\nthree") == ["one two"]
    assert lines.add(" four five") == ["three four"]
    assert lines.end() == ["five"]
    assert Lines().end() == []


@given(st.lists(st.text(st.sampled_from("ab \n")), max_size=9))
def test_no_word_is_lost(pieces: list[str]) -> None:
    lines = Lines(width=9)
    shown = [line for piece in pieces for line in lines.add(piece)] + lines.end()
    assert "".join("".join(shown).split()) == "".join("".join(pieces).split())
    assert all(len(line) <= 9 for line in shown)
