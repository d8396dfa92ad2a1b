"""The log of operators and triggers, as the unit tests read it."""

from __future__ import annotations

import logging

import pytest

NAME = "task"
"""The logger that operators and triggers get in the unit tests."""


class TaskLog:
    """The log lines of operators and triggers."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __str__(self) -> str:
        return "\n".join(self.lines(logging.DEBUG))

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """Return the messages of this level and above."""
        return [
            record.getMessage() for record in self._caplog.records if record.levelno >= level and record.name == NAME
        ]
