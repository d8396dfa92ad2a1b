"""The link from a task in Airflow's UI to the page of its model or agent on the platform.

A run has no link: the platform offers only its poll URL, which needs the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


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
        page = getattr(operator, "asset_page", None)
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "") if page is None else str(page)


ASSET_LINK = AixplainAssetLink()
