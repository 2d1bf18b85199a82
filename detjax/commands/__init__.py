"""The command line: one module a command, flags in, one call into detjax."""
