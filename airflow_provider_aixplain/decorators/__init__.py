"""Task decorators for aiXplain."""
