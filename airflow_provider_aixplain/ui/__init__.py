"""The page aiXplain in Airflow's UI."""
