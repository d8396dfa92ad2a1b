"""Results as Parquet."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.batch.results import make_result, write_parquet
from airflow_provider_aixplain.inputs.rows import Row
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus


def test_large_results_are_written_in_bounded_memory(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra")
    asset, size = Asset("model", "echo"), 1_000_000

    def results(count: int) -> Iterator[dict[str, Any]]:
        for index in range(count):
            response = ModelResponse(ResponseStatus.SUCCESS, data="x" * size)
            yield make_result(index, Row(index, "{}"), 0.0, response, None, asset, is_known=True)

    tracemalloc.start()
    try:
        with (tmp_path / "results.parquet").open("wb") as file:
            write_parquet(results(100), file, (), asset)
        assert tracemalloc.get_traced_memory()[1] < 60 * size
    finally:
        tracemalloc.stop()
    assert parquet.ParquetFile(tmp_path / "results.parquet").metadata.num_rows == 100
