"""Metrics, in numpy."""
