"""Converts results of both sides to JSON types, to compare them."""

from __future__ import annotations

import datetime
import enum
from typing import Any

from pydantic import BaseModel

from tests.support.public_api import RESPONSE_FIELDS

MODEL = (
    "id",
    "name",
    "description",
    "supplier",
    "version",
    "function",
    "is_subscribed",
    "cost",
    "created_at",
    "supports_streaming",
    "status",
    "function_type",
    "additional_info",
    "model_params",
)


class Answer(BaseModel):
    """The expected output of an agent."""

    rating: int


def plain(value: Any) -> Any:
    """Return a value in JSON types; a response or model becomes a dict of its fields."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    for names, mark in ((RESPONSE_FIELDS, "used_credits"), (MODEL, "supports_streaming")):
        if hasattr(value, mark):
            return {name: plain(getattr(value, name)) for name in names}
    if hasattr(value, "parameters"):
        return plain(value.to_dict())
    if hasattr(value, "__dataclass_fields__"):
        return plain(vars(value))
    return value


def revive(value: Any) -> Any:
    """Return arguments from their JSON, in which members of enumerations, NaN and :class:`Answer` have markers."""
    if isinstance(value, dict):
        if "__enum__" in value:
            return enum.Enum("Word", {"ANY": revive(value["__enum__"])})["ANY"]
        if "__answer__" in value:
            return Answer
        return float("nan") if "__nan__" in value else {key: revive(item) for key, item in value.items()}
    return [revive(item) for item in value] if isinstance(value, list) else value
