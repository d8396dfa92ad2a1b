"""Server-sent events, as in the WHATWG HTML standard."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.protocol.sse import Event, EventDecoder, looks_like_events
from tests.support.fuzzing import examples


def decode(pieces: Iterable[bytes]) -> list[Event]:
    """Return the events of a stream, without an event that was cut off."""
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
def test_events_are_decoded_as_the_standard_specifies(stream: bytes, events: list[Event]) -> None:
    assert decode([stream]) == events
    assert decode([b"", *(stream[at : at + 1] for at in range(len(stream))), b""]) == events


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6).map(str.encode)
EVENT = st.builds(Event, st.lists(LINE, min_size=1, max_size=3).map(b"\n".join), LINE)
IGNORED = (b":", b": comment", b"id: 7", b"id", b"retry: 5", b"retry", b"unknown: x", b"unknown", b" data: x")


def serialize(events: list[Event], dice: random.Random) -> bytes:
    """Return events in any legal form."""
    stream = dice.choice([b"", b"\xef\xbb\xbf"])
    for event in events:
        fields = [(b"data", line) for line in event.data.split(b"\n")]
        fields.insert(dice.randint(0, len(fields)), (b"event", event.name))
        lines = []
        for name, value in fields:
            lines += dice.sample(IGNORED, dice.randint(0, 2))
            forms = [name + b": " + value]
            forms += [] if value.startswith(b" ") else [name + b":" + value]
            forms += [] if value else [name]
            lines.append(dice.choice(forms))
        for line in [*lines, *[b""] * dice.randint(1, 2)]:
            # After CR an empty line cannot end with LF alone: that would belong to the end before.
            stream += line + dice.choice([b"\r", b"\r\n"] if stream.endswith(b"\r") else [b"\n", b"\r", b"\r\n"])
    return stream


@settings(max_examples=examples(), deadline=None)
@given(st.lists(EVENT, max_size=4), st.integers())
def test_any_legal_form_in_any_pieces_gives_the_same_events(events: list[Event], seed: int) -> None:
    dice = random.Random(seed)
    stream = serialize(events, dice)
    cuts = sorted(dice.randint(0, len(stream)) for _ in range(dice.randint(0, 9)))
    assert decode(stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)) == events


def test_an_event_cut_off_by_the_end_is_returned_separately() -> None:
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
def test_a_stream_is_recognized_by_its_beginning(start: bytes, expected: bool | None) -> None:
    assert looks_like_events(start) is expected
