"""Fixtures of all tests of batches."""

from __future__ import annotations

import os

import pytest

TAGS = (f"{os.getpid()}-{number}" for number in range(10_000))


@pytest.fixture
def tag() -> str:
    """The prefix of the inputs of one test, as all tests share one emulator."""
    return next(TAGS)
