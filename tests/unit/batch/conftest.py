"""What all tests of batches share."""

from __future__ import annotations

import os

import pytest

TAGS = (f"{os.getpid()}-{number}" for number in range(10_000))


@pytest.fixture
def tag() -> str:
    """What the inputs of one test begin with: the emulator is that of many."""
    return next(TAGS)
