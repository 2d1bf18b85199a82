"""Import weights: python scripts/import_weights.py --source=torchvision FILE ..."""

from detjax.commands.import_weights import main

if __name__ == "__main__":
    main()
