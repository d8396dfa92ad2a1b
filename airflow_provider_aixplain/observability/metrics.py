"""Run cost and wait duration, reported through Airflow's Stats.

Airflow sends them to StatsD, OpenTelemetry or Datadog, as configured. All names start with ``aixplain.``. Each metric
has the tags ``dag_id``, ``task_id``, ``model_id`` or ``agent_id``, and ``outcome``. Plain StatsD has no tags, and adds
up all tasks, models, agents and outcomes.

==================  =========  ============================================================================
name                kind       meaning
==================  =========  ============================================================================
``runs``            counter    outcomes that tasks processed: ``success``, ``failed``, ``timeout``, ``error`` (the
                               result is unknown), ``refused`` (there is no run), ``orphaned`` (there may be a run,
                               whose poll URL was lost), ``submitted`` (the task does not wait for the run)
``credits``         counter    cost of finished runs, in millionths of a credit
``tokens``          counter    tokens of finished runs, with the tag ``kind``: ``prompt`` or ``completion``
``run_duration``    timer      duration of the run as the platform reports it, in milliseconds
``polls``           counter    polls of a run
``wait_duration``   timer      from the submission, or the sensor's start, to the end of the wait, in milliseconds
==================  =========  ============================================================================
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
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
TOKENS = {"prompt": "prompt_tokens", "completion": "completion_tokens"}

MAX_TAG_LENGTH = 55
"""Characters of a tag's value. Airflow drops a metric whose name, with all tags in InfluxDB's format, exceeds 250."""

Tags = tuple[tuple[str, str], ...]


@contextmanager
def _best_effort() -> Iterator[None]:
    """Log errors of metrics, and of figures that a supplier sends, instead of losing the result."""
    try:
        yield
    except Exception as error:
        log.warning("No metrics of this run: %s: %s", type(error).__name__, error)


class RunMetrics:
    """Metrics of runs, added up until they are sent. One thread may add to them while another one sends them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, Tags], Decimal] = defaultdict(Decimal)
        self._times: list[tuple[str, Tags, float]] = []

    @_best_effort()
    def add_end(self, asset: Asset, outcome: str, response: ModelResponse | Mapping[str, Any] | None) -> None:
        """Add an outcome of a run, and the cost of a run that has finished.

        :param asset: what was run; if its id is not known, that in the response counts, if any.
        :param outcome: see above.
        :param response: the ModelResponse, also as a dict, if there is one.
        """
        figures: Any = response or {}
        tags = _tags(asset, outcome, figures)
        with self._lock:
            self._counts["runs", tags] += 1
            if outcome not in ("success", "failed"):
                return  # a later outcome of the same run reports its cost
            if (used_credits := parse_number(figures.get("used_credits"))) and used_credits > 0:
                self._counts["credits", tags] += to_millionths(used_credits)
            usage = figures.get("usage")
            for kind, name in TOKENS.items():
                if isinstance(usage, Mapping) and (tokens := parse_number(usage.get(name))) and tokens > 0:
                    self._counts["tokens", (*tags, ("kind", kind))] += int(tokens)
            if (run_time := parse_number(figures.get("run_time"))) and run_time > 0:
                self._times.append(("run_duration", tags, run_time))

    @_best_effort()
    def add_wait(self, asset: Asset, outcome: Outcome, polls: int, seconds: float) -> None:
        """Add a wait for a run.

        :param asset: as for :meth:`add_end`.
        :param outcome: the outcome of the wait.
        :param polls: how many polls were made.
        :param seconds: the duration of the wait.
        """
        tags = _tags(asset, outcome.status, outcome.response or {})
        with self._lock:
            self._counts["polls", tags] += polls
            self._times.append(("wait_duration", tags, seconds))

    def send(self, stats: Any, task: Any) -> None:
        """Send everything that was added since the last call. A fraction of a count is kept for the next one.

        :param stats: Airflow's Stats.
        :param task: as for :func:`count_end`.
        """
        task_tags = tags_of_task(task)
        with self._lock:
            counts, self._counts = self._counts, defaultdict(Decimal)
            times, self._times = self._times, []
            for key, count in counts.items():
                if fraction := count - round(count):  # half to even
                    self._counts[key] = fraction
        for (name, tags), count in counts.items():
            if whole := round(count):
                stats.incr(f"{PREFIX}.{name}", whole, tags={**task_tags, **dict(tags)})
        for name, tags, seconds in times:
            stats.timing(f"{PREFIX}.{name}", timedelta(seconds=seconds), tags={**task_tags, **dict(tags)})


def count_end(
    asset: Asset,
    outcome: str,
    response: Mapping[str, Any] | None,
    task: Any,
    stats: Callable[[], Any] | None = None,
) -> None:
    """Count an outcome of a run, and its cost.

    :param asset: what was run; if its id is not known, that in the response counts, if any.
    :param outcome: see above.
    :param response: the ModelResponse as a dict, if there is one.
    :param task: the task instance in which this happens, so for a nested operator that of the outer task; or anything
        else with ``dag_id`` and ``task_id``. What has neither counts as ``unknown``.
    :param stats: returns Airflow's Stats; default: those of a worker.
    """
    with _best_effort():
        metrics = RunMetrics()
        metrics.add_end(asset, outcome, response)
        metrics.send((stats or worker_stats)(), task)


def count_wait(
    asset: Asset, outcome: Outcome, polls: int, seconds: float, task: Any, stats: Callable[[], Any] | None = None
) -> None:
    """Count a wait for a run.

    :param asset: as for :func:`count_end`.
    :param outcome: the outcome of the wait.
    :param polls: how many polls were made.
    :param seconds: the duration of the wait.
    :param task: as for :func:`count_end`.
    :param stats: as for :func:`count_end`.
    """
    with _best_effort():
        metrics = RunMetrics()
        metrics.add_wait(asset, outcome, polls, seconds)
        metrics.send((stats or worker_stats)(), task)


def outcome_of(error: AixplainError) -> str:
    """Return the outcome of a submission that has raised an error."""
    if isinstance(error, AixplainRunFailed):
        return "failed"
    is_refusal = isinstance(error, AixplainPermanentError) or 400 <= (error.status_code or 0) <= 499
    return "refused" if is_refusal else "orphaned"


def to_millionths(used_credits: float) -> Decimal:
    """Return credits in millionths, exactly. Many metrics servers round counts to integers."""
    return Decimal(repr(used_credits)).scaleb(6)


def tags_of_task(task: Any) -> dict[str, str]:
    """Return the tags that name a task, see :func:`count_end`."""
    return {name: clean_tag(getattr(task, name, None) or "unknown") for name in ("dag_id", "task_id")}


def _tags(asset: Asset, outcome: str, response: ModelResponse | Mapping[str, Any]) -> Tags:
    record = response.get("asset")
    record_id = record.get("assetId") or record.get("id") if isinstance(record, Mapping) else None
    return (asset.id_name, clean_tag(asset.id or record_id or "unknown")), ("outcome", outcome)


def clean_tag(value: object) -> str:
    """Return a tag's value in characters that every metrics backend accepts, at most 55.

    The value can come from a response, in which other characters could end the tag and start another one. Airflow drops
    StatsD metrics with any character beyond these. A hash keeps long or non-ASCII values distinct.
    """
    text = str(value)
    if len(text) <= MAX_TAG_LENGTH and text.isascii():
        return _replace(text)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{_replace(text[: MAX_TAG_LENGTH - 9])}-{digest}"


def _replace(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_./-]", "_", text)
