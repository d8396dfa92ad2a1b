"""The platform's protocol as pure functions: requests, answers and the schedule of polls.

Nothing in this package opens a socket, reads a clock or imports Airflow.
"""
