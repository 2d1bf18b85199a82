"""Look inside a run: python scripts/explain.py VIEW --workdir=DIR --out=DIR2."""

from detjax.commands.explain import main

if __name__ == "__main__":
    main()
