"""Published weight files <-> parameters, strict both ways."""
