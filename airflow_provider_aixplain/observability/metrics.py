"""What runs cost and how long they are waited for, as metrics of Airflow's own Stats.

They go to StatsD, OpenTelemetry or Datadog, as Airflow is set up. All names begin with ``aixplain.``. Each has the tags
``model_id`` and ``outcome``; plain StatsD has no tags, and sums up.

==================  =========  ============================================================================
name                kind       what
==================  =========  ============================================================================
``runs``            counter    runs, by outcome: ``success``, ``failed``, ``timeout`` or ``error`` (nobody learnt the
                               end), ``refused`` (there is none), ``orphaned`` (there may be one,
                               whose poll URL was lost), ``submitted`` (nobody waits)
``credits``         counter    credits that the platform says it has billed, a fraction
``tokens``          counter    tokens, with the tag ``kind``: ``prompt`` or ``completion``
``run_duration``    timer      how long the model ran, as the platform says; Airflow's timers are in milliseconds
``polls``           counter    polls that were made for a run
``wait_duration``   timer      from the submission, or the sensor's start, to the end of the wait, in milliseconds
==================  =========  ============================================================================
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.protocol.values import parse_number

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.response import ModelResponse
    from airflow_provider_aixplain.protocol.wait import Outcome

log = logging.getLogger(__name__)

PREFIX = "aixplain"
MAX_TAG_LENGTH = 200
TOKENS = {"prompt": "prompt_tokens", "completion": "completion_tokens"}


def count_end(
    model_id: str | None, outcome: str, response: Mapping[str, Any] | None, stats: Callable[[], Any] | None = None
) -> None:
    """Count a run whose end a task has taken.

    :param model_id: the model's id; if it is None, the response may tell.
    :param outcome: see above.
    :param response: the ModelResponse as a dict, if there is one.
    :param stats: returns Airflow's Stats; default: those of a worker.
    """
    with _best_effort():
        told_to = (stats or worker_stats)()
        told = response or {}
        tags = _tags(model_id, outcome, told)
        told_to.incr(f"{PREFIX}.runs", tags=tags)
        if (spent := parse_number(told.get("used_credits"))) and spent > 0:
            told_to.incr(f"{PREFIX}.credits", spent, tags=tags)
        usage = told.get("usage")
        for kind, name in TOKENS.items():
            if isinstance(usage, Mapping) and (tokens := parse_number(usage.get(name))) and tokens > 0:
                told_to.incr(f"{PREFIX}.tokens", int(tokens), tags={**tags, "kind": kind})
        if (run_time := parse_number(told.get("run_time"))) and run_time > 0:
            told_to.timing(f"{PREFIX}.run_duration", timedelta(seconds=run_time), tags=tags)


def count_wait(
    model_id: str | None, outcome: Outcome, polls: int, seconds: float, stats: Callable[[], Any] | None = None
) -> None:
    """Count a wait for a run.

    :param model_id: as for :func:`count_end`.
    :param outcome: how the wait ended.
    :param polls: how many were made.
    :param seconds: how long the run has been waited for.
    :param stats: as for :func:`count_end`.
    """
    with _best_effort():
        told_to = (stats or worker_stats)()
        tags = _tags(model_id, outcome.status, outcome.response or {})
        told_to.incr(f"{PREFIX}.polls", polls, tags=tags)
        told_to.timing(f"{PREFIX}.wait_duration", timedelta(seconds=seconds), tags=tags)


def outcome_of(error: AixplainError) -> str:
    """Return the outcome of a submission that an error has ended."""
    if isinstance(error, AixplainRunFailed):
        return "failed"
    is_refusal = isinstance(error, AixplainPermanentError) or 400 <= (error.status_code or 0) <= 499
    return "refused" if is_refusal else "orphaned"


def worker_stats() -> Any:
    """Return the Stats that Airflow sets up on workers."""
    from airflow.providers.common.compat.sdk import Stats

    return Stats


def triggerer_stats() -> Any:
    """Return the Stats that Airflow sets up in triggerers, which in Airflow 3.3 are not those of its SDK."""
    try:
        from airflow.observability import stats
    except ImportError:
        from airflow import stats  # type: ignore[no-redef] # Airflow 2's
    return stats.Stats


def _tags(model_id: str | None, outcome: str, response: ModelResponse | Mapping[str, Any]) -> dict[str, str]:
    asset = response.get("asset")
    sent = asset.get("assetId") or asset.get("id") if isinstance(asset, Mapping) else None
    return {"model_id": clean_tag(model_id or sent or "unknown"), "outcome": outcome}


def clean_tag(value: object) -> str:
    """Return a tag's value in characters that every metrics backend accepts, at most 200.

    The value can come from an answer, where other characters could end the tag and begin another one.
    """
    return re.sub(r"[^A-Za-z0-9_./:@+-]", "_", str(value)[:MAX_TAG_LENGTH])


@contextmanager
def _best_effort() -> Iterator[None]:
    """Whatever is wrong with metrics, or with figures that a supplier sends: it loses no result."""
    try:
        yield
    except Exception as error:
        log.warning("No metrics of this run: %s: %s", type(error).__name__, error)
