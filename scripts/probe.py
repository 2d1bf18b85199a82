"""Probe: python scripts/probe.py --config=FILE.py --workdir=DIR, see --help."""

from detjax.commands.probe import main

if __name__ == "__main__":
    main()
