"""Checks of arguments that operators and sensors share."""

from __future__ import annotations

from typing import Any

from airflow_provider_aixplain.exceptions import AixplainInputError


def one_of(name: str, value: Any, *known: str) -> Any:
    """Return an argument that is one of some words.

    :param name: what to call it in an error.
    :raises AixplainInputError: if it is none of them.
    """
    if value not in known:
        raise AixplainInputError(f"{name} is {value!r}: use {' or '.join(known)}")
    return value
