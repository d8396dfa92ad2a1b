"""Thousands of inputs in one task: their rows, the state that survives, and what runs them."""
