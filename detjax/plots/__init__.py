"""Plots as matplotlib Figures: numbers of a run, of an evaluation, of a data set.

Functions return a Figure that no display knows of; `save` and `save_all` write it.
matplotlib is imported where something is drawn.
"""
