"""JSON values: what can be sent, and what Airflow can store."""

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
"""Characters of an error text that are kept: a gateway's page or a stack trace must not flood a task's log."""

MAX_DEPTH = 100
"""Levels of nesting that are kept of an answer; deeper values become JSON text. Airflow 3.3.2 can store about 200."""

MAX_FIGURE = 1e12
"""The largest cost, duration (in seconds) or count that is accepted; a larger one counts as unknown."""

NOT_JSON = object()
"""The result of reading text that is not JSON. (None is a JSON value.)"""

Convert = Callable[[Any], Any]
Redact = Callable[[str], str]

RESERVED_KEYS = frozenset({"__classname__", "__id__", "__type"})
"""Keys that name a class in Airflow's serialization: Airflow refuses to store them, or creates an object of them."""

_BYTES = (bytes, bytearray, memoryview)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# An escape may spell an underscore or a letter of a reserved key.
_MAY_BE_UNSTORABLE = re.compile(r"\\u(0000|005[fF]|00[67]|[dD][89a-fA-F])|__(classname__|id__|type)\"")


def to_sendable(value: Any, path: str, convert: Convert | None = None) -> Any:
    """Return a copy of a value in types that JSON can hold. Enum members become their values.

    :param path: the name of the value, for an error.
    :param convert: returns the replacement of a value that JSON cannot hold, or ``NOT_JSON``; it may raise
        ``InvalidInput``.
    :raises InvalidInput: naming the path to a value that JSON cannot hold.
    """
    if isinstance(value, Enum):
        return to_sendable(value.value, path, convert)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{path} is {value}, which JSON cannot hold: send null or a string instead")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise InvalidInput(f"{path} has the key {key!r}, a {type(key).__name__}: JSON keys are strings")
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
            f"{path} is a {kind}, which is not uploaded automatically: to send the file, wrap it in Upload of"
            " airflow_provider_aixplain.files in the DAG's code, as in Upload('file:///data/first.wav')"
        )
    raise InvalidInput(f"{path} is a {kind}, which JSON cannot hold: convert it to a string or plain types")


def parse_json(text: str) -> Any:
    """Return the JSON value of a text, or ``NOT_JSON``. NaN and Infinity are not JSON, although Python accepts them."""
    try:
        return json.loads(text, parse_constant=parse_finite_float, parse_float=parse_finite_float)
    except (ValueError, RecursionError):
        return NOT_JSON


def decode(body: bytes) -> str:
    """Return the text of an answer in any encoding that JSON permits; invalid bytes become U+FFFD."""
    return body.decode(json.detect_encoding(body), "replace")


def read_json(body: bytes, redact: Redact = str) -> Any:
    """Return the JSON value of an answer, in types that Airflow can store; or ``NOT_JSON``.

    Numbers that do not fit 64 bits, infinities, NaN and values that nest too deeply become strings; lone surrogates and
    NUL become U+FFFD; keys that Airflow reserves get a leading underscore. Unchanged in a trigger's event, such a value
    crashes Airflow's triggerer or fails the task (seen in Airflow 3.3.2); PostgreSQL refuses NUL.

    :param redact: removes secrets from a text. It is applied to decoded strings and keys, as an escape can spell any
        letter of a secret.
    """
    # Decoded here: from bytes, json accepts raw lone surrogates, and rejects a whole answer for one invalid byte.
    return read_json_text(decode(body), redact)


def read_json_text(text: str, redact: Redact = str) -> Any:
    """Return the JSON value of a text, as :func:`read_json`."""
    try:
        value = _decoder.decode(text)
        # Without escapes each string occurs literally in the text, so checking the whole text is enough.
        is_clean = text.count("[") + text.count("{") <= MAX_DEPTH and not _MAY_BE_UNSTORABLE.search(text)
        if is_clean and (redact is str or ("\\" not in text and redact(text) == text)):
            return value
        return to_storable(value, redact)
    except (ValueError, RecursionError):
        return NOT_JSON


def to_storable(value: Any, redact: Redact = str, depth: int = 0) -> Any:
    """Return a copy of any value in JSON types that Airflow can store, as :func:`read_json`; other types as strings.

    :param redact: removes secrets from a text.
    :param depth: the level of nesting of the value.
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
    # The built-in types come first: checking the abstract ones takes longer than everything else.
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
    """Return a number, or that of a numeric string; None for anything else, such as ``"NaN"`` and booleans.

    :param largest: the largest absolute value that is accepted.
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
    """Return the decimal sum of numbers: 0.1 and 0.2 are 0.3, unlike in a sum of floats.

    :param figures: finite numbers.
    """
    return float(sum((Decimal(repr(figure)) for figure in figures), Decimal(0)))


def fields_with_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not empty: not None, and not an empty string, list or object."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def parse_time(value: Any) -> datetime | None:
    """Return the time of a string in ISO 8601, by default in UTC; None for anything else."""
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else None
    except ValueError:
        return None
    return parsed.replace(tzinfo=timezone.utc) if parsed and parsed.tzinfo is None else parsed


def to_text(value: Any) -> str:
    """Return a JSON value as a string: a string unchanged, null as an empty one, anything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def replace_control_characters(text: str) -> str:
    """Return a text with a space for each unprintable character, which could forge or hide log lines."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def to_printable(text: object) -> str:
    """Return an untrusted text for logs and errors: bounded, without control characters."""
    shown = replace_control_characters(str(text)[: MAX_ERROR_LENGTH + 1])
    return shown if len(shown) <= MAX_ERROR_LENGTH else f"{shown[:MAX_ERROR_LENGTH]}…"


def join_names(names: Collection[str], most: int) -> str:
    """Return names as one string for errors and logs, each of at most 100 characters.

    :param most: how many are listed; the others are counted.
    """
    shown = ", ".join(to_printable(name)[:100] for name in islice(names, most))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def parse_finite_float(text: str) -> float:
    """Return the number that a JSON text states.

    :raises ValueError: for NaN, infinities and numbers that overflow. Python's own parser accepts them.
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


# Not strict: some suppliers send raw tabs and line ends in strings.
_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=str, strict=False)
_encoder = json.JSONEncoder(default=str)
