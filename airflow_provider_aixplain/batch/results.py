"""The results of a batch: one JSON object per row, also available as Parquet."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.inputs.rows import Row, take
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus, failure_reason
from airflow_provider_aixplain.protocol.usage import count_tokens
from airflow_provider_aixplain.protocol.values import parse_number, to_printable, to_storable
from airflow_provider_aixplain.submission import now

PARQUET_CHUNK = 10_000
"""The maximum number of results that are converted to Parquet at a time."""

PARQUET_SIZE = 16 * 1024 * 1024
"""Characters of results after which a chunk for Parquet ends before it has as many results."""


def make_result(
    index: int, row: Row, attempt: float, response: ModelResponse, error: str | None, asset: Asset, *, is_known: bool
) -> dict[str, Any]:
    """Return the result of a row, which is a line of ``results.jsonl``.

    :param index: the index of the row, from 0.
    :param row: the row.
    :param attempt: the attempt, identified by the time of its intent.
    :param response: the last answer of the platform; an empty one if there is none.
    :param error: the error message; None: the error of the response, if it has failed.
    :param asset: what was run. Of an agent, ``data`` holds only the answer, without the steps, which may be large.
    :param is_known: whether the run or its submission has finished; if not, a retry polls the same run.
    """
    if error is None:
        error = failure_reason(response) if response.status is ResponseStatus.FAILED else ""
    is_retryable = response.failure is None or response.failure.retryable is not False
    outputs = asset.outputs(response)
    data = outputs.pop("output", response.data)
    return {
        "row": index,
        "key": row.key,
        "status": str(ResponseStatus.FAILED if error else ResponseStatus.SUCCESS),
        "data": None if error else to_storable(data),
        "error": to_printable(error) or None,
        "used_credits": to_storable(response.used_credits),
        "run_time": to_storable(response.run_time),
        "tokens": count_tokens(response.usage),
        "ended_at": now(),
        "attempt": attempt,
        "may_succeed": bool(error) and (is_retryable or not is_known),
        "is_known": is_known,
        **to_storable(outputs),
        **({"input": row.columns} if row.columns else {}),
    }


def check_parquet() -> None:
    """Check that Parquet can be written.

    :raises AixplainInputError: if pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise AixplainInputError(
            "result_format is 'parquet': pip install 'airflow-provider-aixplain[parquet]', or use jsonl"
        )


def write_parquet(results: Iterable[Mapping[str, Any]], file: Any, columns: Collection[str], asset: Asset) -> None:
    """Write results to a file, in a stream.

    :param results: as :func:`make_result` returns them.
    :param file: a file that is open to write bytes.
    :param columns: the input columns that results repeat: the fields of ``input``, as strings.
    :param asset: what was run.
    """
    import pyarrow
    from pyarrow import parquet

    outputs = asset.output_names[1:]  # the first is ``data``
    schema = pyarrow.schema(
        {
            "row": pyarrow.int64(),
            **dict.fromkeys(("key", "status", "data", "error", "ended_at", *outputs), pyarrow.string()),
            **dict.fromkeys(("used_credits", "run_time"), pyarrow.float64()),
            "tokens": pyarrow.int64(),
            **({"input": pyarrow.struct(dict.fromkeys(columns, pyarrow.string()))} if columns else {}),
        }
    )

    def convert(result: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **result,
            **{name: _as_string(result[name]) for name in ("key", *outputs)},
            "data": None if result["data"] is None else json.dumps(result["data"]),
            **{name: parse_number(result[name]) for name in ("used_credits", "run_time")},
            "input": {name: _as_string(value) for name, value in result.get("input", {}).items()},
        }

    with parquet.ParquetWriter(file, schema) as writer:
        lines = map(convert, results)
        while chunk := take(lines, PARQUET_CHUNK, PARQUET_SIZE):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))


def _as_string(value: Any) -> str | None:
    """Return a string with U+FFFD in place of invalid characters, null as None, and other values as JSON."""
    if value is None:
        return None
    return str(to_storable(value)) if isinstance(value, str) else json.dumps(value)
