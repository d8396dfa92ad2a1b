"""The links of a task in Airflow's UI: to the page of its model or agent, and to what a batch has written.

A run has no link: the platform offers only its poll URL, which needs the key.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class AixplainAssetLink(BaseOperatorLink):
    """The link to the page of the task's model or agent, whose URL is stored in an XCom of the task.

    Airflow 3 calls :meth:`get_link` whenever a worker has executed the task, and stores the URL itself. Airflow 2 calls
    it when a user opens the task, so there the task stores the URL.
    """

    name = "aiXplain page"

    @property
    def xcom_key(self) -> str:
        """The key of the XCom with the URL, as Airflow 3 names it."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if there is none.

        :param operator: the task.
        :param ti_key: the key of its instance.
        """
        # Imported late: the plugin of the page imports this module, and XCom imports the database models of Airflow 2.
        from airflow_provider_aixplain.compat import XCom

        page = getattr(operator, "asset_page", None)
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "") if page is None else str(page)


class AixplainManifestLink(BaseOperatorLink):
    """The link to the XComs of a batch: its manifest is the ``return_value``."""

    name = "Manifest"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the page with the XComs of a task instance."""
        return xcom_page(ti_key)


class AixplainResultsLink(BaseOperatorLink):
    """The link to the folder of a batch in the console of its storage.

    It leads to the manifest, which names the path, if the storage has no console whose address is known, and in
    Airflow 2, whose web server computes it from the task as it is in the DAG.
    """

    name = "Results"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL."""
        page = None
        if compat.stores_links():
            with suppress(Exception):  # of the storage, or of its Connection
                page = console_page(str(operator.result_path))  # type: ignore[attr-defined]
        return page or xcom_page(ti_key)


def airflow_url(path: str) -> str:
    """Return the URL of a page of Airflow's UI."""
    base_url: str = conf.get("api" if compat.is_at_least(3, 0) else "webserver", "base_url", fallback="/")
    return f"{base_url.rstrip('/')}/{path}"


def xcom_page(ti_key: Any) -> str:
    """Return the URL of the page with the XComs of a task instance.

    :param ti_key: its key, or the task instance.
    """
    dag_id, run_id, task_id = (quote(name, safe="") for name in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    is_mapped = (ti_key.map_index if ti_key.map_index is not None else -1) >= 0
    if compat.is_at_least(3, 0):
        index = f"/mapped/{ti_key.map_index}" if is_mapped else ""
        return airflow_url(f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}{index}/xcom")
    query = {"dag_run_id": ti_key.run_id, "task_id": ti_key.task_id, "tab": "xcom"}
    if is_mapped:
        query["map_index"] = ti_key.map_index
    return airflow_url(f"dags/{dag_id}/grid?{urlencode(query)}")


def console_page(uri: str) -> str | None:
    """Return the URL of a folder in the console of its storage: that of AWS or Google Cloud; None for others.

    The address of Azure's portal needs more than the URI and the Connection.

    :param uri: the URI of the folder.
    """
    from airflow_provider_aixplain.compat import ObjectStoragePath

    path = ObjectStoragePath(uri)
    bucket = path.bucket.rpartition("@")[2]  # without the Connection, which Airflow 3.0 and 3.1 leave in it
    folder = quote(path.key.rstrip("/"))
    if path.protocol in ("gs", "gcs"):
        return f"https://console.cloud.google.com/storage/browser/{bucket}/{folder}"
    if path.protocol in ("s3", "s3a"):
        # Other object stores have S3's interface too.
        host = urlsplit(path.fs.s3.meta.endpoint_url).hostname or ""
        if host.endswith(".amazonaws.com"):
            return f"https://console.aws.amazon.com/s3/buckets/{bucket}?prefix={folder}/"
    return None


ASSET_LINK = AixplainAssetLink()
BATCH_LINKS = (AixplainResultsLink(), AixplainManifestLink())
