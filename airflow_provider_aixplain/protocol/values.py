"""JSON values: which can be sent, and which Airflow can hand on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from functools import partial
from typing import Any

from airflow_provider_aixplain.protocol.failure import InvalidInput

MAX_ERROR_LENGTH = 2000
"""Characters of an error text that are kept: a gateway's page or a stack trace belongs in no task log."""

MAX_DEPTH = 100
"""Levels of nesting that an answer keeps; what lies deeper stays as JSON text. Airflow 3.3.2 hands on some 200."""

NOT_JSON = object()
"""What reading gives for a text that holds no JSON value; None is a value."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_UNSTORABLE_ESCAPE = re.compile(r"\\u(0000|[dD][89a-fA-F])")


def sendable(value: Any, path: str) -> Any:
    """Return a copy of a value in the types that JSON can hold. Enum members become their values.

    :param path: what to call the value in an error.
    :raises InvalidInput: naming the path to what JSON cannot hold.
    """
    if isinstance(value, Enum):
        return sendable(value.value, path)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{path} is {value}, which JSON cannot hold: send null or a text instead")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise InvalidInput(f"{path} has the key {key!r}, a {type(key).__name__}: JSON keys are texts")
        return {key: sendable(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [sendable(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise InvalidInput(f"{path} is a {type(value).__name__}, which JSON cannot hold: convert it to text or plain types")


def parse(text: str) -> Any:
    """Return the JSON value of a text, or ``NOT_JSON``. NaN and Infinity, which Python reads, are no JSON."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return NOT_JSON


def read(body: bytes) -> Any:
    """Return the JSON value of an answer, in types that Airflow can hand on; or ``NOT_JSON``.

    Numbers that do not fit 64 bits, infinite ones and NaN stay as their text, and so does what nests too deeply; half
    surrogate pairs and NUL become U+FFFD. A trigger's event with such a value ends Airflow's whole triggerer or fails
    the task that takes it (seen in Airflow 3.3.2), and PostgreSQL refuses NUL as an XCom.
    """
    # Decoded here: given bytes, json lets raw half pairs pass, and gives a whole answer up for one odd byte.
    text = body.decode(json.detect_encoding(body), "replace")
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    try:
        value = _loads(text)
        return storable(value) if may_be_deep or _UNSTORABLE_ESCAPE.search(text) else value
    except (ValueError, RecursionError):
        return NOT_JSON


def storable(value: Any, depth: int = 0) -> Any:
    """Return a copy of any value in plain JSON types that Airflow can hand on, as :func:`read` does; the rest as text.

    :param depth: how deep the value lies.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return storable(value.value, depth)
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    collection = isinstance(value, (Mapping, Sequence, Set)) and not isinstance(value, (bytes, bytearray))
    if collection and depth == MAX_DEPTH:
        return json.dumps(value, default=str)
    if isinstance(value, Mapping):
        return {storable(str(key)): storable(item, depth + 1) for key, item in value.items()}
    if collection:
        return [storable(item, depth + 1) for item in value]
    return storable(str(value))


def number(value: Any) -> int | float | None:
    """Return a number, also one that is written as text; or None. ``"NaN"`` and truth values are no numbers."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def as_text(value: Any) -> str:
    """Return a JSON value as text: a text itself, null as the empty one, anything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def printable(text: object) -> str:
    """Return a text from outside, bounded and without control characters that could forge log lines."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: MAX_ERROR_LENGTH + 1])
    return shown if len(shown) <= MAX_ERROR_LENGTH else f"{shown[:MAX_ERROR_LENGTH]}…"


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no JSON number that can be sent on")
    return value


def _integer(text: str) -> int | str:
    return text if len(text) > 20 or not -(2**63) <= int(text) < 2**63 else int(text)


def _float(text: str) -> float | str:
    return value if math.isfinite(value := float(text)) else text


_loads = partial(json.loads, parse_int=_integer, parse_float=_float, parse_constant=str)
