"""What an agent does, as log lines: the steps, or the older ``progress``, in the answers to the polls of its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from airflow_provider_aixplain.protocol.response import ModelResponse
from airflow_provider_aixplain.protocol.statuses import find_step_figures, is_figure
from airflow_provider_aixplain.protocol.values import parse_number, replace_control_characters

MAX_LINES = 10
"""Steps of one answer that are logged; the others are counted."""

MAX_STEPS = 1000
"""Steps of one wait that are logged and remembered."""

MAX_TEXT = 150
"""Characters of a name, a task or an error that are logged."""


class Steps:
    """The steps of an agent's run that one wait has seen."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()
        self._progress = ""

    def new_lines(self, response: ModelResponse) -> list[str]:
        """Return a line for each step that has finished since the last answer, and for each change of the progress.

        When the run has finished, the steps count as finished too. A step is identified by its id or
        position.

        :param response: the answer to a poll. The answer of a model gives no lines.
        """
        data = response.data
        steps = data.get("steps") if isinstance(data, dict) else None
        if steps and isinstance(steps, list):
            finished = list(self._select_new(steps, has_run_finished=response.completed))
            lines = [_describe_step(number, step) for number, step in finished[:MAX_LINES]]
            remaining = len(finished) - MAX_LINES
            return [*lines, f"{remaining} more steps have finished"] if remaining > 0 else lines
        progress = response.additional_fields.get("progress")
        if not isinstance(progress, dict) or (line := _describe_progress(progress)) == self._progress:
            return []
        self._progress = line
        return [line]

    def _select_new(self, steps: list[Any], *, has_run_finished: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the new finished steps and their numbers. Steps with the same id, or without one, differ by order."""
        ids: Counter[str] = Counter()
        for number, step in enumerate(steps, 1):
            if not isinstance(step, dict):
                continue
            step_id = step.get("id") or step.get("step_id")
            step_id = str(step_id)[:MAX_TEXT] if isinstance(step_id, (str, int)) else ""
            ids[step_id] += 1
            key = (step_id, ids[step_id])
            is_finished = has_run_finished or any(map(step.get, ("output", "error", "error_message", "end_time")))
            if is_finished and key not in self._seen and len(self._seen) < MAX_STEPS:
                self._seen.add(key)
                yield number, step


def _describe_step(number: int, step: dict[str, Any]) -> str:
    unit = step.get("unit")
    kind = _text(unit.get("type")) if isinstance(unit, dict) else ""
    unit_name = _name(unit) or _text(step.get("action"))
    return _line(
        f"Step {number}",
        [_name(step.get("agent")) or _name(step.get("agent_name")), f"{kind} {unit_name}".strip()],
        next((text for key in ("task", "thought", "reason") if (text := _text(step.get(key)))), ""),
        *find_step_figures(step),
        error=step.get("error") or step.get("error_message"),
    )


def _describe_progress(progress: dict[str, Any]) -> str:
    number, total = parse_number(progress.get("currentStep")), parse_number(progress.get("totalSteps"))
    tool = _text(progress.get("tool"))
    success, seconds = progress.get("success"), progress.get("runtime")
    return _line(
        f"Step {number:g} of {total:g}" if number and total else "Step",
        [_name(progress.get("agent")), f"tool {tool}" if tool else _text(progress.get("stage"))],
        _text(progress.get("reason")) or _text(progress.get("message")),
        # While the tool runs, its time grows, so that each poll would log a line.
        parse_number(seconds) or 0 if success is not None and is_figure(seconds) else 0,
        error=success is False,
    )


def _line(subject: str, actors: list[str], purpose: str, seconds: float, credits: float = 0, *, error: Any) -> str:
    figures = [f"{seconds:.1f} s"] if seconds else []
    figures += [f"{credits:g} credits"] if credits else []
    parts = [f"{subject}: {', '.join(filter(None, actors)) or 'unnamed'}"]
    parts += [f": {purpose}"] if purpose else []
    parts += [f" ({', '.join(figures)})"] if figures else []
    if error:
        reason = _text(error.get("message") if isinstance(error, dict) else error)
        parts += [f"; failed: {reason}" if reason else "; failed"]
    return "".join(parts)


def _name(value: Any) -> str:
    """Return the name of an agent, a tool or a model: a string, or an object with a ``name`` or an ``id``."""
    return (_text(value.get("name")) or _text(value.get("id"))) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    """Return a string for a log line, in bounded time: short, and without line ends. Other values become empty."""
    if not isinstance(value, str):
        return ""
    shown = replace_control_characters(" ".join(value[:MAX_TEXT].split()))
    return f"{shown}…" if len(value) > MAX_TEXT else shown
