"""Uploads in all ways in which Airflow expands and renders tasks, and a path that comes from an XCom."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task, task_group

from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

FOLDER = os.environ["UPLOADS_FOLDER"]


def arguments(task_id: str, **more: Any) -> dict[str, Any]:
    """Return arguments for a task whose run has the task's id in its payload."""
    common = {"model_id": "echo", "parameters": {"from": task_id, "delay": 0}, "deferrable": False}
    return {"task_id": task_id, **common, **more}


with DAG("uploads", schedule=None, params={"folder": FOLDER}):
    run = AixplainRunModelOperator
    template = Upload("file://{{ params.folder }}/{{ 'ab'[ti.map_index] }}.txt")

    @task
    def files() -> list[str]:
        return [f"file://{FOLDER}/a.txt", f"file://{FOLDER}/b.txt"]

    @task
    def first() -> str:
        return f"file://{FOLDER}/a.txt"

    @task
    def outside() -> Any:
        secret = {"path": f"file://{FOLDER}/secret.txt", "conn_id": None, "kwargs": {}}
        return {"__type": f"{ObjectStoragePath.__module__}.ObjectStoragePath", "__var": secret}

    paths = files()
    run(**arguments("single", data={"text": Upload(first())}))
    run(**arguments("leaked", data={"text": outside()}))
    run.partial(**arguments("partial", data={"text": template})).expand(name=["a", "b"])
    run.partial(**arguments("literal")).expand(data=[{"text": template}, [template]])
    run.partial(**arguments("mapped")).expand(data=paths.map(lambda path: {"text": Upload(path)}))
    run.partial(**arguments("kwargs")).expand_kwargs(paths.map(lambda path: {"data": {"text": Upload(path)}}))

    @task_group
    def group(path: Any) -> None:
        run(**arguments("member", data={"text": Upload(path)}))

    group.expand(path=paths)
