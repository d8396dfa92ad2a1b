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
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow_provider_aixplain.compat import worker_stats
from airflow_provider_aixplain.exceptions import AixplainError, AixplainPermanentError, AixplainRunFailed
from airflow_provider_aixplain.protocol.usage import TOKENS, credits_of
from airflow_provider_aixplain.protocol.values import parse_number

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.assets import Asset
    from airflow_provider_aixplain.protocol.response import ModelResponse
    from airflow_provider_aixplain.protocol.wait import Outcome

log = logging.getLogger(__name__)

MAX_TAG_LENGTH = 55
"""Characters of a tag's value. Airflow drops a metric whose name, with all tags in InfluxDB's format, exceeds 250."""

P = ParamSpec("P")
Tags = tuple[tuple[str, str], ...]


def _best_effort(method: Callable[P, None]) -> Callable[P, RunMetrics]:
    """Make a method return its object, and log the first error instead of raising it: no result may be lost."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> RunMetrics:
        metrics: Any = args[0]
        try:
            method(*args, **kwargs)
        except Exception as error:
            if not metrics.has_failed:
                log.warning("The metrics of this task are incomplete: %s: %s", type(error).__name__, error)
            metrics.has_failed = True
        return metrics  # type: ignore[no-any-return]

    return call


class RunMetrics:
    """Metrics of runs, added up until they are sent. One thread may add to them while another one sends them."""

    def __init__(self) -> None:
        self.has_failed = False
        self._added: deque[tuple[str, Tags, int | Decimal | timedelta]] = deque()
        self._fractions: defaultdict[tuple[str, Tags], int | Decimal] = defaultdict(int)

    @_best_effort
    def add_end(self, asset: Asset, outcome: str, response: ModelResponse | Mapping[str, Any] | None) -> None:
        """Add an outcome of a run, and the cost of a run that has finished.

        :param asset: what was run; if its id is not known, that in the response counts, if any.
        :param outcome: see above.
        :param response: the ModelResponse, also as a dict, if there is one.
        """
        figures: Any = response or {}
        tags = _tags(asset, outcome, figures)
        self._added.append(("runs", tags, 1))
        if outcome not in ("success", "failed"):
            return  # a later outcome of the same run reports its cost
        self._added.append(("credits", tags, to_millionths(credits_of(figures))))
        usage = figures.get("usage")
        for kind, name in TOKENS.items() if isinstance(usage, Mapping) else ():
            tokens = max(0, parse_number(usage.get(name)) or 0)
            self._added.append(("tokens", (*tags, ("kind", kind)), int(tokens)))
        if (run_time := parse_number(figures.get("run_time"))) and run_time > 0:
            self._added.append(("run_duration", tags, timedelta(seconds=run_time)))

    @_best_effort
    def add_wait(self, asset: Asset, outcome: Outcome, polls: int, seconds: float) -> None:
        """Add a wait for a run.

        :param asset: as for :meth:`add_end`.
        :param outcome: the outcome of the wait.
        :param polls: how many polls were made.
        :param seconds: the duration of the wait.
        """
        tags = _tags(asset, outcome.status, outcome.response or {})
        self._added.append(("polls", tags, polls))
        self._added.append(("wait_duration", tags, timedelta(seconds=seconds)))

    @_best_effort
    def send(
        self,
        task: Any,
        stats: Callable[[], Any] = worker_stats,
        gauges: Mapping[str, int] | None = None,
        gauge_tags: Tags = (),
    ) -> None:
        """Send everything that was added since the last call. A fraction of a count is kept for the next one.

        :param task: the task instance in which this happens, so for a nested operator that of the outer task; or
            anything else with ``dag_id`` and ``task_id``. What has neither counts as ``unknown``.
        :param stats: returns Airflow's Stats; default: those of a worker.
        :param gauges: gauges to send too, by name.
        :param gauge_tags: their tags, in addition to those of the task.
        """
        backend, counts = stats(), self._fractions
        task_tags = {name: clean_tag(getattr(task, name, None) or "unknown") for name in ("dag_id", "task_id")}
        self._fractions = defaultdict(int)
        for _ in range(len(self._added)):
            name, tags, value = self._added.popleft()
            if isinstance(value, timedelta):
                backend.timing(f"aixplain.{name}", value, tags=task_tags | dict(tags))
            else:
                counts[name, tags] += value
        for (name, tags), count in counts.items():
            if whole := round(count):  # half to even
                backend.incr(f"aixplain.{name}", whole, tags=task_tags | dict(tags))
            if count != whole:
                self._fractions[name, tags] = count - whole
        for gauge, current in (gauges or {}).items():
            backend.gauge(f"aixplain.{gauge}", current, tags=task_tags | dict(gauge_tags))


def outcome_of(error: AixplainError) -> str:
    """Return the outcome of a submission that has raised an error."""
    if isinstance(error, AixplainRunFailed):
        return "failed"
    is_refusal = isinstance(error, AixplainPermanentError) or 400 <= (error.status_code or 0) <= 499
    return "refused" if is_refusal else "orphaned"


def to_millionths(used_credits: Decimal) -> Decimal:
    """Return credits in millionths, exactly. Many metrics servers round counts to integers."""
    return used_credits.scaleb(6)


def _tags(asset: Asset, outcome: str, response: ModelResponse | Mapping[str, Any]) -> Tags:
    return (asset.id_name, clean_tag(asset.or_reported(response).id or "unknown")), ("outcome", outcome)


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
