"""Hooks for aiXplain."""
