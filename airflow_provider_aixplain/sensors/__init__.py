"""Sensors for aiXplain."""
