"""Links from a task in Airflow's UI to its model and its run on the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

    from airflow_provider_aixplain.transport.platform import Platform


class _Link(BaseOperatorLink):
    """A link that is known once the task's run is, and is kept in an XCom of the task.

    Airflow 3 asks for it on the worker, at the end of each visit, and keeps it itself. Airflow 2 asks for it when
    somebody looks at the task, so there the task has kept it.
    """

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the URL: Airflow 3's own name for it."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; empty if there is none.

        :param operator: the task.
        :param ti_key: which of its instances.
        """
        links = getattr(operator, "links", None)
        if links is not None:
            return str(links.get(self.xcom_key, ""))
        return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "")


class AixplainModelLink(_Link):
    """To the model's page on the platform."""

    name = "aiXplain model"


class AixplainRunLink(_Link):
    """To the run: its poll URL, which is all that the platform has of it."""

    name = "aiXplain run"


MODEL_LINK, RUN_LINK = AixplainModelLink(), AixplainRunLink()
LINKS = (MODEL_LINK, RUN_LINK)


def link_xcoms(platform: Platform, model_id: str, poll_url: str) -> dict[str, str]:
    """Return the XComs that the links are kept in, by key.

    :param platform: knows where its models' pages are.
    :param model_id: the model's id; empty if it is not known.
    :param poll_url: the run's; empty as long as there is none.
    """
    page = platform.model_page(model_id) if model_id else ""
    return {MODEL_LINK.xcom_key: page, RUN_LINK.xcom_key: poll_url}


def is_kept_by_airflow() -> bool:
    """Whether Airflow itself keeps what a link says at the end of a worker's visit, as Airflow 3 does."""
    return hasattr(BaseOperatorLink, "xcom_key")
