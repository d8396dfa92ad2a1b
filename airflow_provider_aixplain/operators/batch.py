"""The batch operator: thousands of inputs in one task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    told_as_airflow_errors,
)
from airflow_provider_aixplain.operators.arguments import (
    RESUMED_WITHOUT_EVENT,
    deferrable_or_default,
    one_of,
    refuse_nested,
)
from airflow_provider_aixplain.protocol.wait import seconds
from airflow_provider_aixplain.submission import now, seconds_since
from airflow_provider_aixplain.templates import TemplatedOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_aixplain.batch.engine import Engine, Limits
    from airflow_provider_aixplain.batch.rows import BadRow, Mapper, Row
    from airflow_provider_aixplain.batch.state import Header, State
    from airflow_provider_aixplain.hooks.aixplain import AixplainHook

SHOWN_BAD_ROWS = 20


class AixplainBatchRunOperator(TemplatedOperator):
    """Runs a model on each row of an input, as one task, and returns a manifest.

    A worker reads the input and writes what is to be submitted to ``result_path``; a trigger submits the runs, so many
    at a time, polls them, and appends each result to ``results.jsonl`` there; a worker takes the sum. Whatever is
    killed meanwhile, the next one goes on with what the result path tells: no row that was accepted is submitted again.
    The same holds for a retry, and for a task that is cleared: only rows without a result are run, and of those that
    failed only the ones that may succeed.

    The manifest is a dict: ``path`` (of the results), ``rows``, ``succeeded``, ``failed``, ``bad_rows``,
    ``first_bad_rows`` (texts), ``orphaned`` (for each submission of which nobody learnt what became of it, its row's
    key: there may be a run of the row beside the one whose result is there), ``credits``, ``tokens``, ``run_time`` and
    ``seconds`` (of all runs, and of the batch).

    :param model_id: the model's id on the platform. (templated)
    :param input: the rows: a list; or the URI or ``ObjectStoragePath`` of a file of JSON lines (``.jsonl``), CSV with a
        header, or Parquet (``pip install 'airflow-provider-aixplain[parquet]'``), or of a folder of such files. It
        names what the worker reads, so never set it from text of untrusted origin. (templated)
    :param result_path: the URI of a folder for the results and the state of this batch, and of no other: in an object
        storage, with the id of its Connection if it needs one (``s3://aws_default@bucket/folder``); or on a file system
        that workers and triggerers share (``file:///data/out``). (templated)
    :param data: the column whose values are sent as ``data``: text is never read as JSON or a number; or a dict
        from the payload's fields to columns; default: the row itself. (templated)
    :param parameters: further parameters of all runs, by name. (templated)
    :param parameter_columns: parameters that columns hold: a dict from names to columns. (templated)
    :param key: the column with the key of a row, which its result has too: a text or whole number, unique; default:
        the number of the row, from 1. (templated)
    :param include_columns: names of input columns that each result repeats, as the object ``input``. A column that
        does not exist is an error. Default: none. (templated)
    :param encoding: of a text file: the name of a Python codec; UTF-8, with or without a byte order mark, by default.
        (templated)
    :param delimiter: of a CSV file: one character. Default: a comma, or a tab if the name ends with ``.tsv``.
        (templated)
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``. (templated)
    :param max_in_flight: how many runs at a time.
    :param max_per_second: how many submissions a second, at most; default: no limit.
    :param max_credits: when the results have cost so much, no more rows are submitted, and the task fails; the rest can
        be run with a higher limit. Runs that are in flight then cost too. Default: no limit.
    :param result_format: ``jsonl``; or ``parquet``: in the end the results are written to ``results.parquet`` as well,
        ``data`` as JSON text.
    :param on_bad_row: what to do if a row is no input: ``fail``, before anything is submitted, or ``skip``.
    :param on_changed_input: what to do if the result path holds another input's batch: ``fail``, or ``restart``, which
        deletes it.
    :param fail_on: when rows that failed fail the task: ``any`` of them, ``all`` of them, or more than this fraction.
    :param wait_time: seconds before a run's second poll, as long as nothing is known of the model's run times.
    :param timeout: seconds, or a timedelta, after which a row is given up; its run goes on.
    :param deferrable: if False, all is done on the worker; default: ``[aixplain] deferrable`` of Airflow's
        configuration, which is True unless set.
    :raises AixplainInputError: if an argument can make no batch.
    """

    template_fields: Sequence[str] = (
        "model_id",
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
    ui_color = "#e5f0ff"
    _engine: Engine | None = None

    def __init__(
        self,
        *,
        model_id: str,
        input: Any,
        result_path: str,
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
        self.max_in_flight = _positive("max_in_flight", max_in_flight, int)
        self.max_per_second = None if max_per_second is None else _positive("max_per_second", max_per_second)
        self.max_credits = None if max_credits is None else _positive("max_credits", max_credits)
        self.result_format = one_of("result_format", result_format, "jsonl", "parquet")
        self.on_bad_row = one_of("on_bad_row", on_bad_row, "fail", "skip")
        self.on_changed_input = one_of("on_changed_input", on_changed_input, "fail", "restart")
        is_fraction = isinstance(fail_on, (int, float)) and not isinstance(fail_on, bool) and 0 <= fail_on < 1
        if fail_on not in ("any", "all") and not is_fraction:
            raise AixplainInputError(f"fail_on is {fail_on!r}: use any, all, or a fraction from 0 to 1")
        self.fail_on = fail_on
        with told_as_airflow_errors():
            self.wait_time = seconds("wait_time", wait_time)
            self.timeout = seconds("timeout", timeout)
        self.deferrable = deferrable_or_default(deferrable)

    @cached_property
    def hook(self) -> AixplainHook:
        """The hook that carries this task's calls."""
        from airflow_provider_aixplain.hooks.aixplain import AixplainHook

        return AixplainHook(self.aixplain_conn_id)

    @property
    def limits(self) -> Limits:
        """How the batch is run."""
        from airflow_provider_aixplain.batch.engine import Limits

        return Limits(self.max_in_flight, self.max_per_second, self.max_credits, self.wait_time, self.timeout)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the input, and defer until each row has a result.

        :return: the manifest.
        :raises AixplainInputError: if it would defer within another task.
        """
        self._refuse_nested(context)
        self.check_templates(*AixplainBatchRunOperator.template_fields)
        if self.result_format == "parquet":
            from airflow_provider_aixplain.batch import parquet

            parquet.check()
        state = self._state()
        url = self._submission_url()
        with _translate_write_errors(state), TemporaryFile() as spool:
            header = self._prepare(state, url, spool)
        again = state.forget_failed(header)
        progress = state.progress(header)
        left = header.rows - progress.totals.done
        self.log.info(
            "%d rows at %s: %d have a result, %d are to be run%s",
            header.rows,
            state,
            progress.totals.done,
            left,
            f", {again} of them once more" if again else "",
        )
        if left and self.deferrable:
            self._defer(state, header)
        error = asyncio.run(self._run(state, header)) if left else None
        return self.execute_complete(context, {"batch": header.batch, "error": error})

    def _refuse_nested(self, context: Context) -> None:
        refuse_nested(self, context, gives_up_worker=self.deferrable, remedy="deferrable=False")

    def _defer(self, state: State, header: Header) -> NoReturn:
        from airflow_provider_aixplain.triggers.batch import AixplainBatchTrigger

        trigger = AixplainBatchTrigger(
            result_path=str(state),
            batch=header.batch,
            model_id=self.model_id,
            aixplain_conn_id=self.aixplain_conn_id,
            limits=asdict(self.limits),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the end of the batch.

        :param event: the payload of the event of the trigger.
        :return: the manifest.
        :raises AixplainError: if rows failed as ``fail_on`` says, or have no result, or there is no event.
        """
        from airflow_provider_aixplain.batch.state import Deleted

        if event is None:
            raise AixplainError(f"{RESUMED_WITHOUT_EVENT}. A retry, or a clear, runs the rows that have no result")
        state = self._state()
        try:
            header = state.claim(event["batch"], "a worker that finishes")
        except Deleted as error:
            raise AixplainError(f"result_path: {error}") from None
        if event["error"]:
            self._finish(state, header, is_whole=False)
            raise from_event(event["error"])
        return self._finish(state, header)

    def _submission_url(self) -> str:
        """Return where runs are submitted."""
        from airflow_provider_aixplain.protocol import wire

        platform = self.hook.platform
        with told_as_airflow_errors():
            return wire.submission(platform.models_run_url, self.model_id, "{}").url

    def _prepare(self, state: State, url: str, spool: IO[bytes]) -> Header:
        """Claim the batch, write its rows where a trigger reads them, and return its header.

        :param url: where runs are submitted.
        :param spool: a temporary file for the rows of an input that can be read only once.
        """
        from airflow_provider_aixplain.batch.rows import read_spool, write_spool

        earlier = state.header()
        values = self._read()
        if earlier is not None:
            is_read_once = isinstance(self.input, Iterator)
            if is_read_once:
                values = write_spool(values, spool)
            reading = _Reading(values, url)
            for _ in reading:
                pass
            if (str(reading.fingerprint), reading.bad) == (earlier.fingerprint, earlier.bad_rows):
                # Whoever may still be at it, as of a task that was cleared, stops before the next submission.
                return state.go_on(earlier)
            told = f"{state} holds the batch of another input, model or endpoint, of {earlier.started_at}"
            if self.on_changed_input == "fail":
                raise AixplainInputError(f"result_path: {told}; name another folder, or use on_changed_input='restart'")
            self.log.warning("%s. It is deleted", told)
            values = read_spool(spool) if is_read_once else self._read()
        reading = _Reading(values, url)

        def about(batch: str, number: int) -> Header:
            if reading.bad and self.on_bad_row == "fail":
                raise AixplainInputError(
                    f"input has {reading.bad} bad rows, and on_bad_row is fail: {_summarize(reading.first_bad)}"
                )
            if not reading.rows:
                raise AixplainInputError("input has no rows")
            return reading.header(batch, number)

        header = state.begin(reading, about, earlier)
        for bad in reading.first_bad:
            self.log.warning("Skipped %s", bad)
        return header

    def _read(self) -> Iterator[Row | BadRow]:
        from airflow_provider_aixplain.batch.rows import read
        from airflow_provider_aixplain.files import printable_path

        with told_as_airflow_errors():
            try:
                yield from read(self._source(), self._mapper(), self.encoding, self.delimiter)
            except OSError as error:
                shown = printable_path(self.input)[:200]
                raise AixplainError(f"input is {shown!r}, and cannot be read now: {error}") from error

    def _source(self) -> Any:
        from airflow_provider_aixplain.batch.readers import parse_json
        from airflow_provider_aixplain.files import object_path, printable_path

        if not isinstance(self.input, str):
            return self.input
        if self.input.lstrip().startswith("["):
            try:
                return parse_json(self.input.strip())
            except (ValueError, RecursionError) as error:
                raise AixplainInputError(f"input is {self.input[:200]!r}, which is invalid JSON: {error}") from None
        if "://" not in self.input:
            raise AixplainInputError(
                f"input is {printable_path(self.input)[:200]!r}: give a list, or a URI such as file:///data/in.csv"
            )
        return object_path("input", self.input)

    def _mapper(self) -> Mapper:
        from airflow_provider_aixplain.batch.rows import Mapper

        if isinstance(self.include_columns, str) or not all(
            isinstance(name, str) for name in self.include_columns or ()
        ):
            raise AixplainInputError(f"include_columns is {self.include_columns!r}: give a list of names of columns")
        return Mapper(
            self.data, self.parameters or {}, self.parameter_columns or {}, self.key, tuple(self.include_columns or ())
        )

    def _state(self) -> State:
        from airflow_provider_aixplain.batch.state import State

        return State(str(self.result_path))

    async def _run(self, state: State, header: Header) -> dict[str, Any] | None:
        """Run the batch on the worker."""
        from airflow_provider_aixplain.batch.engine import Engine
        from airflow_provider_aixplain.batch.progress import watched
        from airflow_provider_aixplain.metrics import of_worker

        self._engine = engine = Engine(self.hook, self.model_id, state, header.batch, self.limits)
        try:
            return await watched(engine, asyncio.ensure_future(engine.run()), self.log, of_worker)
        finally:
            self._warn_of_open_runs()

    def on_kill(self) -> None:
        """Submit no more, and log how many runs are in flight, where the batch runs on the worker."""
        if self._engine is not None:
            self._engine.stop_from_elsewhere()
        self._warn_of_open_runs()

    def _warn_of_open_runs(self) -> None:
        """Log how many runs are in flight, once."""
        from airflow_provider_aixplain.batch.progress import warn_of_open_runs

        if self._engine is not None:
            warn_of_open_runs(self._engine, self.log)
            self._engine = None

    def _finish(self, state: State, header: Header, *, is_whole: bool = True) -> dict[str, Any]:
        """Write the manifest, and decide whether the task has failed.

        :param is_whole: whether the batch has come to its end.
        """
        progress = state.publish(header)
        totals = progress.totals
        name = "results.jsonl"
        if self.result_format == "parquet" and is_whole:
            from airflow_provider_aixplain.batch.parquet import write

            name = "results.parquet"
            with state.writing(name) as file:
                write(state.ended(header, progress), file, self.include_columns or ())
        manifest = {
            "path": state.storage.uri(name),
            "rows": header.rows,
            "succeeded": totals.succeeded,
            "failed": totals.failed,
            "bad_rows": header.bad_rows,
            "first_bad_rows": header.first_bad_rows,
            "orphaned": progress.orphaned,
            "credits": totals.credits,
            "tokens": totals.tokens,
            "run_time": totals.run_time,
            "seconds": seconds_since(header.started_at),
        }
        with state.writing("manifest.json") as file:
            file.write(f"{json.dumps(manifest, indent=2)}\n".encode())
        told = f"{totals.succeeded} of {header.rows} rows succeeded, {totals.failed} failed"
        self.log.info("%s, for %.6g credits: %s", told, totals.credits, manifest["path"])
        if not is_whole:
            return manifest
        left = header.rows - totals.done
        if left and self.max_credits is not None and totals.credits >= self.max_credits:
            raise AixplainPermanentError(
                f"max_credits is {self.max_credits:g}, and {totals.credits:.6g} are spent: {left} rows are left."
                " Raise it, and clear the task: it goes on with them"
            )
        if left:
            raise AixplainError(f"{left} of {header.rows} rows have no result: {manifest['path']}")
        if self._has_failed(header.rows, totals.failed):
            kind = AixplainRunFailed if progress.may_succeed else AixplainPermanentError
            raise kind(f"{told}, and fail_on is {self.fail_on}: {manifest['path']}")
        return manifest

    def _has_failed(self, rows: int, failed: int) -> bool:
        if self.fail_on == "any":
            return failed > 0
        if self.fail_on == "all":
            return failed == rows
        return failed / rows > float(self.fail_on)


class _Reading:
    """Passes on the rows of an input, and counts what goes by.

    :param values: rows, and bad ones.
    :param url: where they are submitted.
    """

    def __init__(self, values: Iterator[Row | BadRow], url: str) -> None:
        from airflow_provider_aixplain.batch.rows import Fingerprint

        self._values = values
        self.fingerprint = Fingerprint(url)
        self.rows = self.bad = 0
        self.first_bad: list[BadRow] = []

    def __iter__(self) -> Iterator[Row]:
        from airflow_provider_aixplain.batch.rows import Row

        for value in self._values:
            if isinstance(value, Row):
                self.fingerprint.add(value)
                self.rows += 1
                yield value
            else:
                self.bad += 1
                if len(self.first_bad) < SHOWN_BAD_ROWS:
                    self.first_bad.append(value)

    def header(self, batch: str, number: int) -> Header:
        from airflow_provider_aixplain.batch.state import Header

        told = [str(bad) for bad in self.first_bad]
        return Header(str(self.fingerprint), self.rows, self.bad, told, now(), batch, number)


def _summarize(rows: Iterable[BadRow]) -> str:
    """Return what is wrong with rows, for people: each reason once, after the lines that have it."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.reason, []).append(row.place)
    return "; ".join(f"{', '.join(found)}: {reason}" for reason, found in places.items())


@contextmanager
def _translate_write_errors(state: State) -> Iterator[None]:
    """Raise an error that a retry cannot overcome as bad input.

    :raises AixplainInputError: naming the result path.
    """
    from airflow_provider_aixplain.batch.readers import is_permanent

    try:
        yield
    except OSError as error:
        if not is_permanent(error):
            raise
        raise AixplainInputError(
            f"result_path: {state} cannot be written: {error}. Name a folder that workers and triggerers can write to"
        ) from error


def _positive(name: str, value: Any, kind: Any = (int, float)) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
        raise AixplainInputError(f"{name} is {value!r}: give a number above 0")
    return value
