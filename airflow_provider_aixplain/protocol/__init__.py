"""The platform's protocol as plain data: what is asked of it, what it answers, when to ask again.

Nothing in this package opens a socket, reads a clock or imports Airflow.
"""
