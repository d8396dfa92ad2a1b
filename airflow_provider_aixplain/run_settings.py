"""The settings of a run, passed from the operator to its trigger and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_aixplain.exceptions import translate_protocol_errors
from airflow_provider_aixplain.protocol.assets import Asset, make_asset
from airflow_provider_aixplain.protocol.wait import to_seconds
from airflow_provider_aixplain.submission import now


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a trigger needs to wait for a run. Airflow's database stores exactly these fields, as flat JSON.

    :param poll_url: the ``url`` of the submission's response; empty before the submission.
    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    :param wait_time: seconds before the second poll, at least 0.2; increases by 10 % per poll up to 60 seconds.
    :param timeout: seconds after the submission at which the wait ends; the run itself continues.
    :param submitted_at: when the run was submitted, in ISO 8601; default: now. Schedule and deadline count from it, so
        that they survive a restart of the triggerer.
    :param deferred_at: when the task was deferred, in ISO 8601; default: now. Its worker may still be busy then.
    :param end_from_trigger: whether the trigger finishes the task when the run has succeeded, and pushes its XComs.
    :param do_xcom_push: whether a trigger that finishes the task pushes its result. It always pushes the usage record.
    :param multiple_outputs: whether each field of the response is also an XCom of its own.
    :param polling: ``backoff``: by ``wait_time``; or ``adaptive``: by the durations of earlier runs of the asset.
    :param asset_page: the URL of the page of the model or agent; empty if it is not known.
    :param usage: the usage record of earlier runs of the task instance, if the trigger finishes the task.
    :param model_id: the model's id, for ``adaptive``, metrics and the result; empty if it is not known.
    :param agent_id: the agent's id instead, if the run is an agent's.
    :raises AixplainInputError: if a duration is invalid.
    """

    poll_url: str = ""
    aixplain_conn_id: str = "aixplain_default"
    wait_time: float = 0.5
    timeout: float = 86400
    submitted_at: str | None = None
    deferred_at: str | None = None
    end_from_trigger: bool = False
    do_xcom_push: bool = True
    multiple_outputs: bool = True
    polling: str = "backoff"
    asset_page: str = ""
    usage: Mapping[str, Any] | None = None
    model_id: str = ""
    agent_id: str = ""

    @property
    def asset(self) -> Asset:
        """The model or agent that is run."""
        return make_asset(self.model_id, self.agent_id)

    def __post_init__(self) -> None:
        """Convert durations to seconds, and set the times of a run that was submitted."""
        with translate_protocol_errors():
            for name in ("wait_time", "timeout"):
                object.__setattr__(self, name, to_seconds(name, getattr(self, name)))
        if self.poll_url:
            for name in ("submitted_at", "deferred_at"):
                object.__setattr__(self, name, getattr(self, name) or now())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
