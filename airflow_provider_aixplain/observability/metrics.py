"""Run cost and wait duration, reported through Airflow's Stats.

Airflow sends them to StatsD, OpenTelemetry or Datadog, as configured. All names start with ``aixplain.``. Each metric
has the tags ``model_id`` or ``agent_id``, and ``outcome``. Plain StatsD has no tags, and adds up all models,
agents and outcomes.

==================  =========  ============================================================================
name                kind       meaning
==================  =========  ============================================================================
``runs``            counter    outcomes that tasks processed: ``success``, ``failed``, ``timeout``, ``error`` (the
                               result is unknown), ``refused`` (there is no run), ``orphaned`` (there may be a run,
                               whose poll URL was lost), ``submitted`` (the task does not wait for the run)
``credits``         counter    credits that the platform has billed, as a decimal number
``tokens``          counter    tokens, with the tag ``kind``: ``prompt`` or ``completion``
``run_duration``    timer      duration of the run as the platform reports it, in milliseconds
``polls``           counter    polls of a run
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

from airflow_provider_aixplain.compat import worker_stats
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.protocol.values import parse_number

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.assets import Asset
    from airflow_provider_aixplain.protocol.response import ModelResponse
    from airflow_provider_aixplain.protocol.wait import Outcome

log = logging.getLogger(__name__)

PREFIX = "aixplain"
MAX_TAG_LENGTH = 200
TOKENS = {"prompt": "prompt_tokens", "completion": "completion_tokens"}


def count_end(
    asset: Asset, outcome: str, response: Mapping[str, Any] | None, stats: Callable[[], Any] | None = None
) -> None:
    """Count an outcome of a run, and its cost.

    :param asset: what was run; if its id is not known, that in the response counts, if any.
    :param outcome: see above.
    :param response: the ModelResponse as a dict, if there is one.
    :param stats: returns Airflow's Stats; default: those of a worker.
    """
    with _best_effort():
        sink = (stats or worker_stats)()
        figures = response or {}
        tags = _tags(asset, outcome, figures)
        sink.incr(f"{PREFIX}.runs", tags=tags)
        if (used_credits := parse_number(figures.get("used_credits"))) and used_credits > 0:
            sink.incr(f"{PREFIX}.credits", used_credits, tags=tags)
        usage = figures.get("usage")
        for kind, name in TOKENS.items():
            if isinstance(usage, Mapping) and (tokens := parse_number(usage.get(name))) and tokens > 0:
                sink.incr(f"{PREFIX}.tokens", int(tokens), tags={**tags, "kind": kind})
        if (run_time := parse_number(figures.get("run_time"))) and run_time > 0:
            sink.timing(f"{PREFIX}.run_duration", timedelta(seconds=run_time), tags=tags)


def count_wait(
    asset: Asset, outcome: Outcome, polls: int, seconds: float, stats: Callable[[], Any] | None = None
) -> None:
    """Count a wait for a run.

    :param asset: as for :func:`count_end`.
    :param outcome: the outcome of the wait.
    :param polls: how many polls were made.
    :param seconds: the duration of the wait.
    :param stats: as for :func:`count_end`.
    """
    with _best_effort():
        sink = (stats or worker_stats)()
        tags = _tags(asset, outcome.status, outcome.response or {})
        sink.incr(f"{PREFIX}.polls", polls, tags=tags)
        sink.timing(f"{PREFIX}.wait_duration", timedelta(seconds=seconds), tags=tags)


def outcome_of(error: AixplainError) -> str:
    """Return the outcome of a submission that has raised an error."""
    if isinstance(error, AixplainRunFailed):
        return "failed"
    is_refusal = isinstance(error, AixplainPermanentError) or 400 <= (error.status_code or 0) <= 499
    return "refused" if is_refusal else "orphaned"


def _tags(asset: Asset, outcome: str, response: ModelResponse | Mapping[str, Any]) -> dict[str, str]:
    record = response.get("asset")
    record_id = record.get("assetId") or record.get("id") if isinstance(record, Mapping) else None
    return {asset.id_name: clean_tag(asset.id or record_id or "unknown"), "outcome": outcome}


def clean_tag(value: object) -> str:
    """Return a tag's value in characters that every metrics backend accepts, at most 200.

    The value can come from a response, in which other characters could end the tag and start another one.
    """
    return re.sub(r"[^A-Za-z0-9_./:@+-]", "_", str(value)[:MAX_TAG_LENGTH])


@contextmanager
def _best_effort() -> Iterator[None]:
    """Log errors of metrics, and of figures that a supplier sends, instead of losing the result."""
    try:
        yield
    except Exception as error:
        log.warning("No metrics of this run: %s: %s", type(error).__name__, error)
