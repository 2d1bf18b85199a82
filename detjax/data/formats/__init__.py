"""Readers of label files: one form a file, with its parts beside it."""
