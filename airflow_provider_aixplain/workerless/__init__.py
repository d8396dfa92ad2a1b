"""Tasks that start or finish in the triggerer, without a worker: ``start_from_trigger`` and ``end_from_trigger``.

This package plugs in at one place: ``airflow_provider_aixplain/placement.py`` imports
:class:`~airflow_provider_aixplain.workerless.placement.TriggererPlacement`, and operators and triggers use nothing else
of it. To remove these modes, delete this folder and ``tests/unit/workerless``, and replace that import in
``placement.py`` with ``PLACEMENT: Placement = WorkerPlacement()``; all other tasks work as before.

=====================  ===============================================================================================
``placement.py``       what operators and triggers ask: is a trigger enough, which trigger starts a task, finish a task
``eligibility.py``     which tasks a trigger can start or finish without losing something
``start_trigger.py``   the trigger that submits a run
``start_settings.py``  the settings of that trigger, and how the output of other tasks stands in them
``xcom_store.py``      the record of a submission in XComs, and the bound on XComs that are pushed at a time
=====================  ===============================================================================================
"""
