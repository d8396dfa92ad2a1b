"""The batch operator: runs thousands of inputs in one task."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainPermanentError,
    AixplainRunFailed,
    from_event,
    translate_protocol_errors,
)
from airflow_provider_aixplain.observability.links import BATCH_LINKS
from airflow_provider_aixplain.observability.outlets import add_to_outlet_events
from airflow_provider_aixplain.operators.arguments import (
    RESUMED_WITHOUT_EVENT,
    deferrable_or_default,
    one_of,
    positive,
    refuse_nested,
)
from airflow_provider_aixplain.protocol.agent import AgentInput, shared_input
from airflow_provider_aixplain.protocol.usage import USAGE_KEY, RunUsage, add_usage
from airflow_provider_aixplain.protocol.wait import to_seconds
from airflow_provider_aixplain.submission import TaskStateIdempotencyStore, now, push_xcoms, seconds_since
from airflow_provider_aixplain.templates import TemplatedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_aixplain.batch.batch import Batch
    from airflow_provider_aixplain.batch.engine import Engine, Limits
    from airflow_provider_aixplain.batch.ledger import Header
    from airflow_provider_aixplain.hooks.aixplain import AixplainHook
    from airflow_provider_aixplain.inputs.rows import BadRow, Row
    from airflow_provider_aixplain.protocol.assets import Asset
    from airflow_provider_aixplain.protocol.payload import ModelInput


class AixplainBatchRunOperator(TemplatedOperator):
    """Runs a model or an agent on each row of an input, as one task, and returns a manifest.

    A worker reads the input and writes the rows to ``result_path``. A trigger submits and polls a limited number of
    runs at a time, and records each step there. A worker publishes the results and the manifest. If a process is
    killed, the next one resumes from the result path, and does not submit accepted rows again. A retry and a cleared
    task resume too: they run only the rows without a result, and the failed rows that may succeed.

    The manifest is a dict: ``path`` (the URI of the results), ``model_id`` or ``agent_id``, ``rows``, ``succeeded``,
    ``failed``, ``bad_rows``, ``first_bad_rows`` (messages), ``orphaned`` (the row's key for each submission that the
    platform may or may not have accepted, so that there may be another, billed run of the row), ``credits``,
    ``tokens``, ``run_time`` (of all runs, in seconds) and ``seconds`` (since the batch began).

    :param model_id: the model's id on the platform. (templated)
    :param agent_id: the id of an agent or a team agent, instead of a model's. (templated)
    :param agent_settings: the arguments ``tools``, ``output_format``, ``expected_output``, ``max_tokens``, ``max_time``
        and ``budget`` of :class:`~airflow_provider_aixplain.operators.aixplain.AixplainRunAgentOperator` for all runs,
        by name. Answers are not checked against ``expected_output``. Default: the agent's own settings.
    :param input: the rows: a list; or the URI or ``ObjectStoragePath`` of a file of JSON lines (``.jsonl``), CSV with a
        header, or Parquet (``pip install 'airflow-provider-aixplain[parquet]'``), or of a folder of such files. The
        worker reads what it names, so never set it from untrusted text. (templated)
    :param result_path: the URI of a folder for the results and the state of this batch only: in object storage, with
        the id of its Connection if it needs one (``s3://aws_default@bucket/folder``); or on a file system that workers
        and triggerers share (``file:///data/out``). (templated)
    :param data: the column whose values are sent as ``data``, or as ``input`` of an agent's query (strings are never
        parsed as JSON or numbers); or a dict from fields of the payload, or of the query, to columns; default: the row
        itself. (templated)
    :param parameters: parameters of all runs, by name; for an agent variables. (templated)
    :param parameter_columns: a dict from names of parameters, or variables, to columns. (templated)
    :param key: the column with the key of a row, which is in its result too: a string or integer, unique per row;
        default: the number of the row, from 1. (templated)
    :param include_columns: names of input columns that each result repeats, as the object ``input``. A column that
        does not exist is an error. Default: none. (templated)
    :param encoding: the encoding of text files: the name of a Python codec. Default: UTF-8, with or without a byte
        order mark. (templated)
    :param delimiter: the delimiter of CSV files: one character. Default: a comma, or a tab if the name ends with
        ``.tsv``. (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param max_in_flight: the maximum number of concurrent runs.
    :param max_per_second: the maximum number of submissions per second; default: no limit.
    :param max_credits: once the results have cost this many credits, no more rows are submitted, and the task fails;
        with a higher limit, a cleared task runs the rest. Runs in flight are billed in addition. Default: no limit.
    :param result_format: ``jsonl``; or ``parquet``, which also writes ``results.parquet`` when the batch has finished,
        with ``data`` and an agent's ``artifacts`` as JSON strings.
    :param on_bad_row: what to do if a row is not valid input: ``fail``, before anything is submitted, or ``skip``.
    :param on_changed_input: what to do if the result path holds the batch of another input: ``fail``, or ``restart``,
        which replaces that batch.
    :param fail_on: which failed rows fail the task: ``any``, ``all``, or more than this fraction of the rows.
    :param wait_time: seconds before a run's second poll, while the run times of the model or agent are unknown.
    :param timeout: seconds, or a timedelta, after which the batch no longer waits for a row. Its run continues.
    :param deferrable: whether a trigger runs the batch; if False, the worker does. Default: ``[aixplain] deferrable``
        of Airflow's configuration, which is True unless set.
    :raises AixplainInputError: if an argument is invalid.
    """

    template_fields: Sequence[str] = (
        "model_id",
        "agent_id",
        "input",
        "result_path",
        "data",
        "parameters",
        "parameter_columns",
        "key",
        "include_columns",
        "encoding",
        "delimiter",
        "aixplain_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    operator_extra_links = BATCH_LINKS
    ui_color = "#e5f0ff"
    _engine: Engine | None = None
    _manifest: dict[str, Any] | None = None

    def __init__(
        self,
        *,
        input: Any,
        result_path: str,
        model_id: str | None = None,
        agent_id: str | None = None,
        agent_settings: Mapping[str, Any] | None = None,
        data: str | Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        parameter_columns: Mapping[str, str] | None = None,
        key: str | None = None,
        include_columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        aixplain_conn_id: str = "aixplain_default",
        max_in_flight: int = 100,
        max_per_second: float | None = None,
        max_credits: float | None = None,
        result_format: Literal["jsonl", "parquet"] = "jsonl",
        on_bad_row: Literal["fail", "skip"] = "fail",
        on_changed_input: Literal["fail", "restart"] = "fail",
        fail_on: Literal["any", "all"] | float = "any",
        wait_time: float | timedelta = 0.5,
        timeout: float | timedelta = 86400,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.agent_id = agent_id
        self.agent_settings = agent_settings
        self.input = input
        self.result_path = result_path
        self.data = data
        self.parameters = parameters
        self.parameter_columns = parameter_columns
        self.key = key
        self.include_columns = include_columns
        self.encoding = encoding
        self.delimiter = delimiter
        self.aixplain_conn_id = aixplain_conn_id
        self.max_in_flight = positive("max_in_flight", max_in_flight, int)
        self.max_per_second = None if max_per_second is None else positive("max_per_second", max_per_second)
        self.max_credits = None if max_credits is None else positive("max_credits", max_credits)
        self.result_format = one_of("result_format", result_format, "jsonl", "parquet")
        self.on_bad_row = one_of("on_bad_row", on_bad_row, "fail", "skip")
        self.on_changed_input = one_of("on_changed_input", on_changed_input, "fail", "restart")
        is_fraction = isinstance(fail_on, (int, float)) and not isinstance(fail_on, bool) and 0 <= fail_on < 1
        if fail_on not in ("any", "all") and not is_fraction:
            raise AixplainInputError(f"fail_on is {fail_on!r}: use any, all, or a fraction from 0 to below 1")
        self.fail_on = fail_on
        with translate_protocol_errors():
            self.wait_time = to_seconds("wait_time", wait_time)
            self.timeout = to_seconds("timeout", timeout)
            self._shared_input()
        self.deferrable = deferrable_or_default(deferrable)

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook of this task."""
        from airflow_provider_aixplain.hooks.aixplain import AixplainHook

        return AixplainHook(self.aixplain_conn_id)

    def _shared_input(self) -> ModelInput | AgentInput:
        """Return what all runs share."""
        return shared_input(self.model_id, self.agent_id, self.agent_settings)

    @property
    def asset(self) -> Asset:
        """The model or agent that is run."""
        return self._shared_input().asset

    @property
    def limits(self) -> Limits:
        """The settings of the engine."""
        from airflow_provider_aixplain.batch.engine import Limits

        return Limits(self.max_in_flight, self.max_per_second, self.max_credits, self.wait_time, self.timeout)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the input, and defer until each row has a result.

        :return: the manifest.
        :raises AixplainInputError: if an argument or the input is invalid, or the operator would defer within another
            task.
        """
        self._refuse_nested(context)
        self.check_templates(*AixplainBatchRunOperator.template_fields)
        if self.result_format == "parquet":
            from airflow_provider_aixplain.batch.results import check_parquet

            check_parquet()
        batch = self._batch()
        url, page = self._submission_url(), self.hook.platform.page_url(self.asset)
        with _translate_write_errors(batch), TemporaryFile() as spool:
            header = self._prepare(batch, url, spool)
        requeued = batch.requeue_failed()
        done = batch.ledger.totals.done
        left = header.rows - done
        if not left:
            self.log.info(
                "All %d rows at %s have a result, so there is nothing to run. To run them again, name another"
                " result_path, or delete that folder",
                header.rows,
                batch,
            )
            return self.execute_complete(context, {"batch": header.batch, "error": None}, page)
        self.log.info(
            "%d rows at %s: %d have a result, %d are to be run%s",
            header.rows,
            batch,
            done,
            left,
            f", {requeued} of them because they have failed" if requeued else "",
        )
        store = self._open_store(context)
        earlier = store.usage if store.is_later_try else None
        if self.deferrable:
            self._defer(batch, header, earlier, page)
        error = asyncio.run(self._run(batch, header, context, earlier, page))
        return self.execute_complete(context, {"batch": header.batch, "error": error}, page)

    def _refuse_nested(self, context: Context) -> None:
        refuse_nested(self, context, releases_worker=self.deferrable, remedy="deferrable=False")

    def _open_store(self, context: Context) -> TaskStateIdempotencyStore:
        """Return the store of the usage record. The submissions of a batch are in its commit log."""
        return TaskStateIdempotencyStore(context, durable=False)

    def _defer(self, batch: Batch, header: Header, earlier: Mapping[str, Any] | None, page: str) -> NoReturn:
        from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger

        trigger = AixplainBatchTrigger(
            result_path=str(batch),
            batch=header.batch,
            model_id=self.model_id or "",
            agent_id=self.agent_id or "",
            aixplain_conn_id=self.aixplain_conn_id,
            limits=asdict(self.limits),
            usage=earlier,
            asset_page=page,
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"asset_page": page},
            timeout=self.execution_timeout,
        )

    def execute_complete(
        self, context: Context, event: dict[str, Any] | None = None, asset_page: str = ""
    ) -> dict[str, Any]:
        """Publish the results of the batch.

        :param event: the payload of the trigger's event.
        :param asset_page: the URL of the page of the model or agent.
        :return: the manifest.
        :raises AixplainError: if too many rows failed for ``fail_on``, rows have no result, or there is no event.
        """
        from airflow_provider_aixplain.batch.batch import BatchDeleted
        from airflow_provider_aixplain.observability.progress import batch_usage

        if event is None:
            raise AixplainError(f"{RESUMED_WITHOUT_EVENT}. A retry, or a clear, runs the rows that have no result")
        batch = self._batch()
        try:
            header = batch.claim(event["batch"], "worker (finishes)")
        except BatchDeleted as error:
            raise AixplainError(f"result_path: {error}") from None
        manifest, reason = self._publish(batch, header, is_complete=not event["error"])
        self._manifest = manifest
        store = self._open_store(context)
        record = store.add_usage(batch_usage(batch.ledger, is_finished=True), self.asset, asset_page)
        store.save()
        push_xcoms(context, {USAGE_KEY: record} if record else {})
        if event["error"]:
            raise from_event(event["error"])
        self._check_results(batch, header, manifest["path"], reason)
        add_to_outlet_events(context, self, manifest)
        return manifest

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the lineage of the batch. Only the openlineage provider calls this."""
        from airflow_provider_aixplain.observability.lineage import files_of_batch, lineage_of

        manifest = self._manifest
        return lineage_of(self.asset, manifest, files_of_batch(self.input), manifest and manifest["path"])

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return the lineage of a batch that failed."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _submission_url(self) -> str:
        """Return the URL to which rows are submitted."""
        platform = self.hook.platform
        with translate_protocol_errors():
            return self.asset.run_request(platform, "{}").url

    def _prepare(self, batch: Batch, url: str, spool: IO[bytes]) -> Header:
        """Begin or resume the batch, and return its header.

        :param url: the URL to which rows are submitted.
        :param spool: a temporary file for the rows of an input that can be read only once.
        """
        from airflow_provider_aixplain.batch.ledger import Header
        from airflow_provider_aixplain.inputs.rows import InputScan, read_spool, write_spool

        earlier = batch.read()
        values = self._read()
        if earlier is not None:
            is_read_once = isinstance(self.input, Iterator)
            scan = InputScan(write_spool(values, spool) if is_read_once else values, url)
            deque(scan, maxlen=0)
            if (scan.fingerprint, scan.bad_rows) == (earlier.fingerprint, earlier.bad_rows):
                # This fences a process that still runs the batch, such as the trigger of a task that was cleared.
                return batch.resume()
            kind = self.asset.kind
            problem = f"{batch} holds the batch of another input, {kind} or endpoint, of {earlier.started_at}"
            if self.on_changed_input == "fail":
                raise AixplainInputError(
                    f"result_path: {problem}; name another folder, or use on_changed_input='restart'"
                )
            self.log.warning("%s. It is replaced", problem)
            values = read_spool(spool) if is_read_once else self._read()
        scan = InputScan(values, url)

        def make_header(batch_id: str) -> Header:
            if scan.bad_rows and self.on_bad_row == "fail":
                raise AixplainInputError(
                    f"input has bad rows, {scan.bad_rows} in all, and on_bad_row is fail: {scan.summarize_bad_rows()}"
                )
            if not scan.rows:
                raise AixplainInputError("input has no rows")
            first_bad_rows = list(map(str, scan.first_bad_rows))
            return Header(batch_id, scan.fingerprint, scan.rows, scan.bad_rows, first_bad_rows, now())

        header = batch.begin(scan, make_header)
        for bad_row in header.first_bad_rows:
            self.log.warning("Skipped %s", bad_row)
        return header

    def _read(self) -> Iterator[Row | BadRow]:
        from airflow_provider_aixplain.files import to_printable_path
        from airflow_provider_aixplain.inputs.rows import Mapper, read

        columns = self.include_columns or ()
        if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
            raise AixplainInputError(f"include_columns is {columns!r}: give a list of names of columns")
        with translate_protocol_errors():
            mapper = Mapper(
                self.data,
                self.parameters or {},
                self.parameter_columns or {},
                self.key,
                tuple(columns),
                self._shared_input(),
            )
            try:
                source = self._source()
                self._check_apart(source)
                yield from read(source, mapper, self.encoding, self.delimiter)
            except OSError as error:
                shown = to_printable_path(self.input)[:200]
                raise AixplainError(f"input is {shown!r}, and cannot be read now: {error}") from error

    def _source(self) -> Any:
        from airflow_provider_aixplain.files import to_object_path, to_printable_path
        from airflow_provider_aixplain.inputs.readers import parse_json

        if not isinstance(self.input, str):
            return self.input
        if self.input.lstrip().startswith("["):
            try:
                return parse_json(self.input.strip())
            except (ValueError, RecursionError) as error:
                raise AixplainInputError(f"input is {self.input[:200]!r}, which is invalid JSON: {error}") from None
        if "://" not in self.input:
            raise AixplainInputError(
                f"input is {to_printable_path(self.input)[:200]!r}: give a list, or a URI such as file:///data/in.csv"
            )
        return to_object_path("input", self.input)

    def _check_apart(self, source: Any) -> None:
        """Refuse a result path in the folder that is the input: a later try would read its files as rows."""
        from airflow_provider_aixplain.files import is_object_path, to_object_path
        from airflow_provider_aixplain.inputs.readers import is_read_with

        if not is_object_path(source):
            return
        results = to_object_path("result_path", str(self.result_path))
        log = f"{str(results.path).rstrip('/')}/log"
        if source.protocol == results.protocol and is_read_with(str(source.path).rstrip("/"), log):
            raise AixplainInputError(
                f"result_path is {str(self.result_path)!r}, which is in the input, so its files would be read as rows:"
                " name a folder outside the input"
            )

    def _batch(self) -> Batch:
        from airflow_provider_aixplain.batch.batch import Batch

        return Batch(str(self.result_path))

    async def _run(
        self, batch: Batch, header: Header, context: Context, earlier: Mapping[str, Any] | None, page: str
    ) -> dict[str, Any] | None:
        """Run the batch on the worker.

        :param earlier: the usage record of earlier tries.
        :param page: the URL of the page of the model or agent.
        """
        from airflow_provider_aixplain.batch.engine import Engine
        from airflow_provider_aixplain.compat import worker_stats
        from airflow_provider_aixplain.observability.progress import run_with_progress
        from airflow_provider_aixplain.triggers.batch import CrossLoopHook

        hook = CrossLoopHook(self.aixplain_conn_id, asyncio.get_running_loop())
        self._engine = engine = Engine(hook, self.asset, batch, header.batch, self.limits)

        async def publish(usage: RunUsage) -> None:
            push_xcoms(context, {USAGE_KEY: add_usage(earlier, usage, self.asset, page)})

        try:
            return await run_with_progress(engine, self.log, context.get("ti") or self, worker_stats, publish)
        finally:
            self._warn_of_open_runs()

    def on_kill(self) -> None:
        """Stop submitting, and log how many runs are in flight, if the batch runs on the worker."""
        if self._engine is not None:
            self._engine.stop()
        self._warn_of_open_runs()

    def _warn_of_open_runs(self) -> None:
        """Log how many runs are in flight, once."""
        from airflow_provider_aixplain.observability.progress import warn_of_open_runs

        if self._engine is not None:
            warn_of_open_runs(self._engine, self.log)
            self._engine = None

    def _publish(self, batch: Batch, header: Header, *, is_complete: bool) -> tuple[dict[str, Any], str]:
        """Publish the results and the manifest.

        :param is_complete: whether the batch has finished without an error.
        :return: the manifest, and the first error of the rows as a part of a sentence.
        """
        first_error, count = batch.publish_results()
        name = "results.jsonl"
        if self.result_format == "parquet" and is_complete:
            from airflow_provider_aixplain.batch.results import write_parquet

            name = "results.parquet"
            with batch.publishing(name) as file:
                write_parquet(batch.results(), file, self.include_columns or (), self.asset)
        totals = batch.ledger.totals
        manifest = {
            "path": batch.store.uri(name),
            self.asset.id_name: self.asset.id,
            "rows": header.rows,
            "succeeded": totals.succeeded,
            "failed": totals.failed,
            "bad_rows": header.bad_rows,
            "first_bad_rows": header.first_bad_rows,
            "orphaned": batch.ledger.orphaned,
            "credits": totals.credits,
            "tokens": totals.tokens,
            "run_time": totals.run_time,
            "seconds": seconds_since(header.started_at),
        }
        with batch.publishing("manifest.json") as file:
            file.write(f"{json.dumps(manifest, indent=2)}\n".encode())
        reason = f". The first error, of {count} {'row' if count == 1 else 'rows'}: {first_error}" if count else ""
        self.log.info("%s, for %.6g credits%s: %s", _summary(batch, header), totals.credits, reason, manifest["path"])
        return manifest, reason

    def _check_results(self, batch: Batch, header: Header, path: str, reason: str) -> None:
        """Raise an error if rows have no result, or too many of them failed.

        :param path: the URI of the results.
        :param reason: the first error of the rows, as a part of a sentence.
        """
        totals = batch.ledger.totals
        left = header.rows - totals.done
        if left and self.max_credits is not None and totals.credits >= self.max_credits:
            raise AixplainPermanentError(
                f"max_credits is {self.max_credits:g}, and {totals.credits:.6g} are spent: {left} rows are left."
                " Raise it, and clear the task: it resumes with them"
            )
        if left:
            raise AixplainError(f"{left} of {header.rows} rows have no result: {path}")
        if self._has_failed(header.rows, totals.failed):
            kind = AixplainRunFailed if batch.ledger.retryable_rows else AixplainPermanentError
            raise kind(f"{_summary(batch, header)}, and fail_on is {self.fail_on}{reason}: {path}")

    def _has_failed(self, rows: int, failed: int) -> bool:
        if self.fail_on == "any":
            return failed > 0
        if self.fail_on == "all":
            return failed == rows
        return failed / rows > float(self.fail_on)


def _summary(batch: Batch, header: Header) -> str:
    totals = batch.ledger.totals
    return f"{totals.succeeded} of {header.rows} rows succeeded, {totals.failed} failed"


@contextmanager
def _translate_write_errors(batch: Batch) -> Iterator[None]:
    """Translate errors of the storage that a retry cannot fix; others are raised unchanged.

    :raises AixplainInputError: naming the result path.
    """
    from airflow_provider_aixplain.inputs.readers import is_permanent

    try:
        yield
    except OSError as error:
        if not is_permanent(error):
            raise
        raise AixplainInputError(
            f"result_path: {batch} cannot be written: {error}. Name a folder that workers and triggerers can write to"
        ) from error
