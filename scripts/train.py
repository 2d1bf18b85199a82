"""Train: python scripts/train.py --config=configs/quickstart.py --workdir=DIR."""

from detjax.commands.train import main

if __name__ == "__main__":
    main()
