"""Evaluate: python scripts/evaluate.py --workdir=DIR [--split=test]."""

from detjax.commands.evaluate import main

if __name__ == "__main__":
    main()
