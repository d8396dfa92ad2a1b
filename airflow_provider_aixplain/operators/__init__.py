"""Operators for aiXplain."""
