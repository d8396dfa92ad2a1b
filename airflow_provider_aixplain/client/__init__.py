"""Calls of the API on one account."""
