"""Classifiers and backbones: python scripts/models.py [NAME]."""

from detjax.commands.models import main

if __name__ == "__main__":
    main()
