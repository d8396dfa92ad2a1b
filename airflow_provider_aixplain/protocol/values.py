"""JSON values: which can be sent, and which Airflow can hand on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import Any

from airflow_provider_aixplain.protocol.failure import InvalidInput

MAX_ERROR_LENGTH = 2000
"""Characters of an error text that are kept: a gateway's page or a stack trace belongs in no task log."""

MAX_DEPTH = 100
"""Levels of nesting that an answer keeps; what lies deeper stays as JSON text. Airflow 3.3.2 hands on some 200."""

MAX_FIGURE = 1e12
"""The largest cost, duration (in seconds) or count that is believed; a larger one is treated as unknown."""

NOT_JSON = object()
"""What reading gives for a text that holds no JSON value; None is a value."""

Convert = Callable[[Any], Any]
Redact = Callable[[str], str]

RESERVED_KEYS = frozenset({"__classname__", "__id__", "__type"})
"""Keys that stand for a class in what Airflow stores: it refuses to store them, or makes an object of them."""

_BYTES = (bytes, bytearray, memoryview)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# An escape may spell a reserved key too, by its underscores or by any of its letters.
_MAY_BE_UNSTORABLE = re.compile(r"\\u(0000|005[fF]|00[67]|[dD][89a-fA-F])|__(classname__|id__|type)\"")


def to_sendable(value: Any, path: str, convert: Convert | None = None) -> Any:
    """Return a copy of a value in the types that JSON can hold. Enum members become their values.

    :param path: what to call the value in an error.
    :param convert: returns the replacement of a value that JSON cannot hold, or ``NOT_JSON``; it may raise
        ``InvalidInput``.
    :raises InvalidInput: naming the path to what JSON cannot hold.
    """
    if isinstance(value, Enum):
        return to_sendable(value.value, path, convert)
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
        return {key: to_sendable(item, f"{path}[{key!r}]", convert) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, _BYTES):
        return [to_sendable(item, f"{path}[{index}]", convert) for index, item in enumerate(value)]
    if convert is not None:
        try:
            converted = convert(value)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}") from None
        if converted is not NOT_JSON:
            return converted
    kind = type(value).__name__
    if hasattr(value, "read_bytes"):
        raise InvalidInput(
            f"{path} is a {kind}, which is not uploaded by itself: to send the file, wrap it in Upload of"
            " airflow_provider_aixplain.files in the DAG's code, as in Upload('file:///data/first.wav')"
        )
    raise InvalidInput(f"{path} is a {kind}, which JSON cannot hold: convert it to text or plain types")


def parse_json(text: str) -> Any:
    """Return the JSON value of a text, or ``NOT_JSON``. NaN and Infinity, which Python reads, are no JSON."""
    try:
        return json.loads(text, parse_constant=parse_finite_float, parse_float=parse_finite_float)
    except (ValueError, RecursionError):
        return NOT_JSON


def decode(body: bytes) -> str:
    """Return the text of an answer in any encoding that JSON permits; bytes that are not valid in it become U+FFFD."""
    return body.decode(json.detect_encoding(body), "replace")


def read_json(body: bytes, redact: Redact = str) -> Any:
    """Return the JSON value of an answer, in types that Airflow can store; or ``NOT_JSON``.

    Numbers that do not fit 64 bits, infinite ones and NaN stay as their text, and so does what nests too deeply; half
    surrogate pairs and NUL become U+FFFD; keys that Airflow reserves get an underscore in front. A trigger's event with
    such a value ends Airflow's whole triggerer or fails the task that takes it (seen in Airflow 3.3.2), and PostgreSQL
    refuses NUL as an XCom.

    :param redact: removes secrets from a text. It is applied to the decoded texts and keys, as an escape can spell any
        letter of a secret.
    """
    # Decoded here: given bytes, json lets raw half pairs pass, and gives a whole answer up for one odd byte.
    return read_json_text(decode(body), redact)


def read_json_text(text: str, redact: Redact = str) -> Any:
    """Return the JSON value of a text as :func:`read` does."""
    try:
        value = _decoder.decode(text)
        # Without escapes each text is a part of the whole, so that a look at the whole shows what needs a change.
        is_clean = text.count("[") + text.count("{") <= MAX_DEPTH and not _MAY_BE_UNSTORABLE.search(text)
        if is_clean and (redact is str or ("\\" not in text and redact(text) == text)):
            return value
        return to_storable(value, redact)
    except (ValueError, RecursionError):
        return NOT_JSON


def to_storable(value: Any, redact: Redact = str, depth: int = 0) -> Any:
    """Return a copy of any value in plain JSON types that Airflow can store, as :func:`read` does; the rest as text.

    :param redact: removes secrets from a text.
    :param depth: how deep the value lies.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return to_storable(value.value, redact, depth)
    if isinstance(value, str):
        return redact(_UNSTORABLE.sub("\ufffd", value))
    if isinstance(value, (int, float)):
        fits = -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)
        shown = str(value)
        return +value if fits and redact(shown) == shown else redact(shown)
    # The plain types come first: a look at the abstract ones takes longer than all the rest.
    is_list = type(value) is list
    is_mapping = not is_list and (type(value) is dict or isinstance(value, Mapping))
    is_collection = is_list or is_mapping or isinstance(value, (Sequence, Set))
    if not is_collection or isinstance(value, _BYTES):
        return to_storable(str(value), redact)
    if depth == MAX_DEPTH:
        try:
            return redact(_encoder.encode(value))
        except (TypeError, ValueError, RecursionError):
            return "…"
    if is_mapping:
        return {_storable_key(key, redact): to_storable(item, redact, depth + 1) for key, item in value.items()}
    return [to_storable(item, redact, depth + 1) for item in value]


def parse_number(value: Any, largest: float = MAX_FIGURE) -> int | float | None:
    """Return a number, also one that is written as text; or None. ``"NaN"`` and truth values are no numbers.

    :param largest: the largest absolute value that counts as a number.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -largest <= value <= largest:
        return None
    return value


def sum_decimals(figures: Iterable[float]) -> float:
    """Return the sum of numbers as they are written: 0.1 and 0.2 make 0.3, which adding floats does not give.

    :param figures: finite numbers, such as :func:`number` returns.
    """
    return float(sum((Decimal(repr(figure)) for figure in figures), Decimal(0)))


def parse_time(value: Any) -> datetime | None:
    """Return the time that a text in ISO 8601 names, in UTC where it names no zone; or None."""
    try:
        told = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else None
    except ValueError:
        return None
    return told.replace(tzinfo=timezone.utc) if told and told.tzinfo is None else told


def to_text(value: Any) -> str:
    """Return a JSON value as text: a text itself, null as the empty one, anything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def replace_control_characters(text: str) -> str:
    """Return a text with a blank for each character that is not printable and could forge or hide log lines."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def to_printable(text: object) -> str:
    """Return a text from outside, bounded and without control characters."""
    shown = replace_control_characters(str(text)[: MAX_ERROR_LENGTH + 1])
    return shown if len(shown) <= MAX_ERROR_LENGTH else f"{shown[:MAX_ERROR_LENGTH]}…"


def join_names(names: Collection[str], most: int) -> str:
    """Return names as one text for errors and logs, each of at most 100 characters.

    :param most: how many are named; the others are counted.
    """
    shown = ", ".join(to_printable(name)[:100] for name in islice(names, most))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def parse_finite_float(text: str) -> float:
    """Return the number that a text in JSON spells.

    :raises ValueError: for NaN, infinities and numbers that overflow, which Python reads and JSON does not have.
    """
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return value


def _storable_key(key: Any, redact: Redact) -> str:
    text = redact(_UNSTORABLE.sub("\ufffd", str(key)))
    return f"_{text}" if text in RESERVED_KEYS else text


def _integer(text: str) -> int | str:
    return text if len(text) > 20 or not -(2**63) <= int(text) < 2**63 else int(text)


def _float(text: str) -> float | str:
    return value if math.isfinite(value := float(text)) else text


# Not strict: a supplier's raw tabs and line ends in a text do not lose the answer.
_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=str, strict=False)
_encoder = json.JSONEncoder(default=str)
