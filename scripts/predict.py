"""Predict: python scripts/predict.py --workdir=DIR --out=DIR2 IMAGE_OR_FOLDER..."""

from detjax.commands.predict import main

if __name__ == "__main__":
    main()
