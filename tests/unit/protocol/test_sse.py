"""Server-sent events, as the WHATWG HTML standard has them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.sse import Event, EventDecoder, looks_like_events
from tests.fuzzing import examples


def decode(pieces: Iterable[bytes]) -> list[Event]:
    """Return the events of a stream, without what its end has cut off."""
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


# The examples of the standard, and its rules.
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event(b"YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [Event(b"first event"), Event(b"second event"), Event(b" third event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event(b""), Event(b"\n")]),
        (b"data:test\n\ndata: test\n\n", [Event(b"test"), Event(b"test")]),
        (b"event: add\ndata: 1\n\nevent: remove\n\ndata: 2\n\n", [Event(b"1", b"add"), Event(b"2")]),
        (b"event: a\nevent: b\ndata: 1\nevent\n\n", [Event(b"1")]),
        (b"retry: 5\nunknown: x\nDATA: x\n data: x\n\n", []),
        (b"\xef\xbb\xbfdata: 1\r\rdata: 2\r\n\r\ndata: 3\n\n", [Event(b"1"), Event(b"2"), Event(b"3")]),
        (b"data: a: b\xe2\x80\xa8c\x85\x0c\n\n", [Event(b"a: b\xe2\x80\xa8c\x85\x0c")]),
        (b"data: not ended\n", []),
        (b'{"a": 1}\n[DONE]\r{"a"\n[1]\n', [Event(b'{"a": 1}'), Event(b"[DONE]")]),
        (b'data: 1\n{"a": 1}\n', [Event(b"1"), Event(b'{"a": 1}')]),
    ],
)
def test_the_rules_of_the_standard(stream: bytes, events: list[Event]) -> None:
    assert decode([stream]) == events
    assert decode([b"", *(stream[at : at + 1] for at in range(len(stream))), b""]) == events


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6).map(str.encode)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
IGNORED = st.one_of(
    LINE.map(b":".__add__),
    LINE.map(b"id: ".__add__),
    st.just(b"id"),
    st.integers(0).map(lambda number: f"retry: {number}".encode()),
    LINE.map(b"unknown:".__add__),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Event], list[bytes]]:
    """Events, and the same in any legal form and any pieces."""
    events = draw(st.lists(st.builds(Event, st.lists(LINE, min_size=1, max_size=2).map(b"\n".join), LINE), max_size=3))
    stream = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    ended_with_cr = False
    for event in events:
        fields = [(b"data", line) for line in event.data.split(b"\n")]
        fields.insert(draw(st.integers(0, len(fields))), (b"event", event.name))
        lines = []
        for name, value in fields:
            lines += draw(st.lists(IGNORED, max_size=1))
            forms = [name + b": " + value, *([] if value.startswith(b" ") else [name + b":" + value])]
            lines.append(draw(st.sampled_from([*forms, *([] if value else [name])])))
        for line in [*lines, *draw(st.lists(st.just(b""), min_size=1, max_size=2))]:
            end = draw(ENDS)
            if ended_with_cr and not line and end == b"\n":
                end = b"\r"  # else it would belong to the end before
            stream += line + end
            ended_with_cr = end == b"\r"
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    return events, [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@settings(max_examples=examples(), deadline=None)
@given(streams())
def test_any_legal_form_in_any_pieces_gives_the_same_events(case: tuple[list[Event], list[bytes]]) -> None:
    events, pieces = case
    assert decode(pieces) == events


def test_what_the_end_cuts_off_is_given_apart() -> None:
    decoder = EventDecoder()
    assert not decoder.is_inside
    assert list(decoder.feed(b"event: x\ndata: 1\ndata: 2")) == []
    assert decoder.is_inside
    assert list(decoder.end()) == [Event(b"1\n2", b"x")]
    assert list(decoder.end()) == []
    assert not decoder.is_inside


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"data: x", True),
        (b"\r\n\n: comment", True),
        (b"\xef\xbb\xbfid:", True),
        (b"data\n", True),
        (b"dat", None),
        (b"", None),
        (b"\n \n", None),
        (b"database", False),
        (b'{"data": 1}', False),
        (b"<html>", False),
    ],
)
def test_a_stream_is_known_by_its_start(start: bytes, expected: bool | None) -> None:
    assert looks_like_events(start) is expected
