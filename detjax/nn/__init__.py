"""Linen layers that several networks share."""
