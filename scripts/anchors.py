"""Anchors that fit: python scripts/anchors.py --config=configs/mine.py."""

from detjax.commands.anchors import main

if __name__ == "__main__":
    main()
