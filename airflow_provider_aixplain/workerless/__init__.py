"""Tasks that start or finish in the triggerer, without a worker: ``start_from_trigger`` and ``end_from_trigger``.

Only ``airflow_provider_aixplain/placement.py`` imports this package: operators and triggers use nothing of it but
:class:`~airflow_provider_aixplain.workerless.placement.TriggererPlacement`. To remove these modes, delete this folder
and its tests, and replace that import in ``placement.py`` with ``PLACEMENT: Placement = WorkerPlacement()``; all other
tasks work as before.

=======================  =========================================================================================
``placement.py``         the interface to operators and triggers
``eligibility.py``       which tasks a trigger can start or finish without losing something
``start_trigger.py``     the trigger that submits a run
``start_settings.py``    the settings of that trigger, with references to the output of other tasks
``submission_slots.py``  the bound on concurrent submissions
``xcom_store.py``        the idempotency record in XComs, and the bound on XComs that are pushed at a time
=======================  =========================================================================================
"""
