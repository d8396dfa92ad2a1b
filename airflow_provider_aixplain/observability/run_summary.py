"""The log line that sums up a wait for a run."""

from __future__ import annotations

from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wait import Outcome

_RESULTS = {
    "success": "Run succeeded",
    "failed": "Run failed",
    "timeout": "Stopped waiting for the run",
    "error": "Gave up polling the run",
}


def run_summary(outcome: Outcome, polls: int, seconds: float) -> str:
    """Return a line such as ``Run succeeded after 20.0 s (13 polls, 0.00164 credits)``.

    :param polls: how many polls were made.
    :param seconds: the seconds since the submission.
    """
    figures = [f"{polls} poll{'' if polls == 1 else 's'}"]
    if outcome.response is not None and outcome.response.completed:
        figures.append(f"{outcome.response.used_credits} credits")
    message = f": {outcome.message}" if outcome.message else ""
    return to_printable(f"{_RESULTS[outcome.status]} after {seconds:.1f} s ({', '.join(figures)}){message}")
