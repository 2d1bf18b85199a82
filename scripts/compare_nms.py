"""Methods of suppression: python scripts/compare_nms.py --workdir=DIR."""

from detjax.commands.compare_nms import main

if __name__ == "__main__":
    main()
