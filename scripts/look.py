"""Look at labels: python scripts/look.py NAME --out=DIR."""

from detjax.commands.look import main

if __name__ == "__main__":
    main()
