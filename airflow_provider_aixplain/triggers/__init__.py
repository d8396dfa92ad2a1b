"""Triggers for aiXplain."""
