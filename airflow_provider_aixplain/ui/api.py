"""The API of the page. Airflow mounts it below ``/aixplain``; it has Airflow's own session and rights on DAGs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.ui.days import DAY, CountedDays, PeriodTooLargeError, midnight
from airflow_provider_aixplain.ui.query import read_fingerprints, read_in_progress, read_period, read_tasks
from airflow_provider_aixplain.ui.usage import (
    Filters,
    Record,
    Summary,
    asset_fields,
    asset_of,
    outcomes_of,
    select_rows,
    show,
)

STATIC = Path(__file__).parent / "static"
BUNDLE = "aixplain.js"
DEFAULT_DAYS = 30

COLUMNS = (
    *("run_after", "dag_id", "run_id", "task_id", "map_index", "model_id", "agent_id"),
    *("credits", "tokens", "run_time", "wait_time", "outcomes"),
)


def _in_utc(value: datetime) -> datetime:
    value = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    if not 2000 <= value.year < 2200:
        raise ValueError("give a date between 2000 and 2200, such as 2026-11-26")
    return value.astimezone(timezone.utc)


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class UsageQuery(BaseModel):
    """The parameters of a request. A date is its midnight in UTC, and so is a time without a zone."""

    start: Moment | None = None
    end: Moment | None = None
    dag_id: list[str] = []
    model_id: list[str] = []
    agent_id: list[str] = []
    outcome: list[str] = []
    group: Literal["asset", "dag", "kind"] = "asset"
    sort: Literal["credits", "-credits", "run_after", "-run_after"] = "-run_after"
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    offset: Annotated[int, Field(ge=0, le=100_000)] = 0

    @field_validator("end")
    @classmethod
    def _check_order(cls, end: datetime | None, info: ValidationInfo) -> datetime | None:
        if end and info.data.get("start") and info.data["start"] >= end:
            raise ValueError("give a time after start")
        return end

    def period(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start and end; by default the last 30 days in UTC, with today."""
        end = self.end or now
        return self.start or midnight((end - timedelta(days=DEFAULT_DAYS - 1)).date()), end

    @property
    def filters(self) -> Filters:
        """What the user wants to see."""
        assets = {*(f"model:{name}" for name in self.model_id), *(f"agent:{name}" for name in self.agent_id)}
        return Filters(set(self.dag_id), assets, set(self.outcome))


User = Annotated[Any, Depends(compat.current_user())]

app = FastAPI(title="aiXplain", openapi_url=None)
days = CountedDays()


@app.exception_handler(RequestValidationError)
def _reject(request: Request, error: RequestValidationError) -> JSONResponse:
    detail = "; ".join(f"{one['loc'][-1]}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors())
    return JSONResponse({"detail": detail}, 422)


@app.get("/api/usage")
def read_usage(query: Annotated[UsageQuery, Query()], user: User) -> dict[str, Any]:
    """Return sums, charts and a page of task instances."""
    start, end = query.period(now := datetime.now(timezone.utc))
    # Without an end, today counts as a whole day, so that it is counted once for all requests.
    until = query.end or midnight(now.date()) + DAY
    with compat.database_session() as session:
        readable = compat.readable_dag_ids(user, session)
        try:
            counted, days_left = days.count(session, start, until)
        except PeriodTooLargeError as error:
            raise HTTPException(422, f"start: {error}") from None
        summary = Summary(readable, query.filters, query.group)
        found = [(day, day.rows, summary.add_day(name.isoformat(), day.groups)) for name, day in counted.items()]
        page = select_rows([(rows, shown) for _, rows, shown in found], query.sort, query.limit, query.offset)
        groups = {index: found[index][0].groups for index in {index for index, _ in page}}  # unpickled once a day
        keys = []
        for index, row in page:
            rows = found[index][1]
            keys.append((rows.dag_run_id[row], groups[index][rows.group[row]].task_id, rows.map_index[row]))
        # Rights are checked again: SQLite gives the number of a deleted DAG run to another one.
        records = {
            key: record for key, record in read_tasks(session, keys).items() if record.dag_run.dag_id in readable
        }
        in_progress = read_in_progress(session, start, until, readable)
        return {
            "start": start.isoformat(),
            "end": end.isoformat(),
            "is_complete": not days_left,
            "days_left": days_left,
            **summary.answer(),
            "batches": [
                {**_row(record), "batch": batch}
                for record in in_progress
                if (batch := record.usage.get("batch")) and not batch["is_finished"] and _is_shown(record, query)
            ],
            "runs": [_row(records[key]) for key in keys if key in records],
        }


def _is_shown(record: Record, query: UsageQuery) -> bool:
    return query.filters.accept(record.dag_run.dag_id, asset_of(record.usage), outcomes_of(record.usage))


def _row(record: Record) -> dict[str, Any]:
    dag_run, task_id, map_index, usage = record
    page = usage.get("page", "")
    return {
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "task_id": task_id,
        "map_index": map_index,
        "run_after": dag_run.run_after.isoformat(),
        **asset_fields(asset_of(usage)),
        "page": page if page.startswith(("https://", "http://")) else "",  # no script in a link
        "credits": show(Decimal(usage["credits"])),
        "tokens": usage.get("tokens", 0),
        "run_time": usage.get("run_time"),
        "wait_time": usage.get("wait_time"),
        "outcomes": outcomes_of(usage),
    }


@app.get("/api/usage.csv")
def download(query: Annotated[UsageQuery, Query()], user: User) -> Response:
    """Return all task instances, the newest DAG runs first; day by day, as there may be a million."""
    start, end = query.period(datetime.now(timezone.utc))
    with compat.database_session() as session:
        readable = compat.readable_dag_ids(user, session)
        dates = list(read_fingerprints(session, start, end))

    def lines() -> Iterator[str]:
        yield _csv(COLUMNS)
        for day in reversed(dates):
            yield _csv_day(max(start, midnight(day)), min(end, midnight(day) + DAY), readable, query)

    name = f"aixplain-usage-{start.date()}-{end.date()}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv_day(start: datetime, end: datetime, readable: set[str], query: UsageQuery) -> str:
    with compat.database_session() as session:
        records = [
            record
            for record in read_period(session, start, end)
            if record.dag_run.dag_id in readable and _is_shown(record, query)
        ]
    rows = [_row(record) for record in sorted(records, key=lambda record: record.order, reverse=True)]
    for row in rows:
        row["outcomes"] = " ".join(f"{outcome}={number}" for outcome, number in row["outcomes"].items())
    return _csv(*([row.get(column) for column in COLUMNS] for row in rows))


def _csv(*rows: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([_protect(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _protect(cell: str) -> str:
    """Return a text that a spreadsheet does not take as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


@app.get("/static/aixplain.js")
async def read_bundle(request: Request) -> Response:
    """Return the page. Browsers revalidate it on each load (HTTP 304)."""
    if not (STATIC / BUNDLE).is_file():
        raise HTTPException(404, f"{BUNDLE} is missing in {STATIC.name}/: create it with make ui")
    response = await StaticFiles(directory=STATIC).get_response(BUNDLE, request.scope)
    response.headers["Cache-Control"] = "no-cache"
    return response
