"""The pace of group commits."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.batch import admission
from airflow_provider_aixplain.batch.admission import LARGE_COMMIT, GroupCommitter
from airflow_provider_aixplain.batch.batch import BatchDeleted
from airflow_provider_aixplain.batch.commit_log import Fenced


@pytest.mark.parametrize(("count", "is_delayed"), [(LARGE_COMMIT - 1, True), (LARGE_COMMIT, False)])
def test_only_small_commits_of_a_long_batch_wait_longer(
    monkeypatch: pytest.MonkeyPatch, count: int, is_delayed: bool
) -> None:
    """The clock is 100 hours after the start, so that the longest pace never passes."""
    monkeypatch.setattr(admission, "LONGEST_PACE", 360_000.0)
    commits: list[int] = []

    async def append(records: list[Any], fenced: bool, commit_id: str) -> None:
        commits.append(len(records))

    async def commit_all() -> None:
        committer = GroupCommitter(append, 0.001)
        stopped = time.monotonic() + 360_000
        monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: stopped))
        await committer.commit({}, fenced=False)
        commits_of_rest = [asyncio.ensure_future(committer.commit({}, fenced=False)) for _ in range(count)]
        await asyncio.wait(commits_of_rest, timeout=0.2 if is_delayed else 30)

    asyncio.run(commit_all())
    assert commits == [1] if is_delayed else commits == [1, count]


@pytest.mark.parametrize("field", ["data", "input", "artifacts"])
def test_a_commit_has_a_maximum_size(field: str) -> None:
    """A takeover reads up to 32 commits at once."""
    commits: list[int] = []

    async def append(records: list[Any], fenced: bool, commit_id: str) -> None:
        commits.append(len(records))

    async def commit_all() -> None:
        committer = GroupCommitter(append, 0.001)
        await asyncio.gather(*(committer.commit({field: {"x": "y" * 300_000}}, fenced=False) for _ in range(7)))

    asyncio.run(commit_all())
    assert commits == [3, 3, 1]


@pytest.mark.parametrize("error", [Fenced(), BatchDeleted(), OSError()])
def test_each_record_of_a_failed_commit_fails(error: Exception) -> None:
    async def append(records: list[Any], fenced: bool, commit_id: str) -> None:
        raise error

    async def commit_all() -> list[Any]:
        committer = GroupCommitter(append, 0.001)
        commits = [committer.commit({}, fenced=number % 2 == 0) for number in range(4)]
        return await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 30)

    assert asyncio.run(commit_all()) == [error] * 4
