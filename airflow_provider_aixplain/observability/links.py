"""The link from a task in Airflow's UI to its model's page on the platform.

A run has no such link: all that the platform has of it is the poll URL, which it refuses without the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class AixplainModelLink(BaseOperatorLink):
    """The link to the model's page, which is stored in an XCom of the task.

    Airflow 3 calls :meth:`get_link` on the worker, at the end of each visit, and stores the URL itself. Airflow 2 calls
    it when a user opens the task, so there the task itself stores the URL before.
    """

    name = "aiXplain model"

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the URL: Airflow 3's own name for it."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if there is none.

        :param operator: the task.
        :param ti_key: which of its instances.
        """
        page = getattr(operator, "model_page", None)
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "") if page is None else str(page)


MODEL_LINK = AixplainModelLink()


def is_stored_by_airflow() -> bool:
    """Whether Airflow itself stores a link's URL at the end of a worker's visit, as Airflow 3 does."""
    return hasattr(BaseOperatorLink, "xcom_key")
