"""Results as Parquet, for those who analyse them in columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.protocol.values import number, storable

ROWS_AT_A_TIME = 10_000


def check() -> None:
    """Check that Parquet can be written.

    :raises AixplainInputError: if it cannot.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise AixplainInputError(
            "result_format is 'parquet': pip install 'airflow-provider-aixplain[parquet]', or use jsonl"
        ) from None


def write(results: Iterable[Mapping[str, Any]], file: Any, columns: Collection[str] = ()) -> None:
    """Write results to a file, in a stream.

    :param results: as :func:`~airflow_provider_aixplain.batch.ledger.make_result` makes them.
    :param file: open, for bytes.
    :param columns: of the input, which results repeat: the fields of ``input``, as texts.
    """
    import pyarrow
    from pyarrow import parquet

    texts, floats = ("key", "status", "data", "error", "ended_at"), ("used_credits", "run_time")
    schema = pyarrow.schema(
        {
            "row": pyarrow.int64(),
            **dict.fromkeys(texts, pyarrow.string()),
            **dict.fromkeys(floats, pyarrow.float64()),
            "tokens": pyarrow.int64(),
            **({"input": pyarrow.struct(dict.fromkeys(columns, pyarrow.string()))} if columns else {}),
        }
    )
    left = iter(results)
    with parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(left, ROWS_AT_A_TIME)):
            lines = [
                {
                    **{name: result[name] for name in ("row", "status", "error", "ended_at", "tokens")},
                    "key": str(result["key"]),
                    "data": None if result["data"] is None else json.dumps(result["data"]),
                    **{name: number(result[name]) for name in floats},
                    "input": {name: _text(value) for name, value in result.get("input", {}).items()},
                }
                for result in some
            ]
            writer.write_table(pyarrow.Table.from_pylist(lines, schema=schema))


def _text(value: Any) -> str | None:
    """Return text with U+FFFD in place of invalid characters, null as None, and other values as JSON."""
    if value is None:
        return None
    return str(storable(value)) if isinstance(value, str) else json.dumps(value)
