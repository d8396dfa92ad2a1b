"""Metrics, lineage, links and progress of runs."""
