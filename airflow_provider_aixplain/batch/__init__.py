"""Runs thousands of rows in one task: storage, state and execution."""
