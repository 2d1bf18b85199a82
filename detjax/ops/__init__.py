"""Geometry and matching for one image: jax and numpy, no parameters, no batch axis."""
