"""Wait for a fine-tuning with a sensor that frees its worker slot between checks, then run the tuned model."""

from __future__ import annotations

import pendulum
from airflow.sdk import PokeReturnValue, dag, task

from airflow_provider_aixplain.exceptions import AixplainPermanentError
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator


@dag(
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    schedule=None,
    params={"model_id": "tuned", "text": "The coffee is wonderful."},
    tags=["example", "aixplain"],
)
def example_aixplain_finetune():
    @task.sensor(poke_interval=60, timeout=7 * 24 * 3600, mode="reschedule")
    def trained(model_id):
        status = AixplainHook().check_finetune_status(model_id)
        if status.has_failed:
            raise AixplainPermanentError(f"The training of {model_id} has failed: {status}")
        return PokeReturnValue(status.is_ready, status.to_dict())

    analyse = AixplainRunModelOperator(
        task_id="analyse",
        model_id="{{ params.model_id }}",
        data={"data": "{{ params.text }}"},
    )

    trained("{{ params.model_id }}") >> analyse


example_aixplain_finetune()
