"""Export weights: python scripts/export_weights.py --workdir=DIR --out=yolo.weights"""

from detjax.commands.export_weights import main

if __name__ == "__main__":
    main()
