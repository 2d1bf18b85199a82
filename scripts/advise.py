"""Advise: python scripts/advise.py --config=FILE.py --workdir=DIR, see --help."""

from detjax.commands.advise import main

if __name__ == "__main__":
    main()
