"""Print parity certificates: python scripts/parity.py GOLDEN.json... (or folders).

Without arguments, every golden below $DETJAX_GOLDENS/yolact.
"""

import os
import pathlib
import sys

from detjax import parity


def main(paths):
    root = pathlib.Path(os.environ.get("DETJAX_GOLDENS", "../shared/goldens"))
    given = [pathlib.Path(p) for p in paths or [root / "yolact"]]
    files = [
        f for p in given for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])
    ]
    print("| model | parameters | outputs | losses | gradients | detections | masks |")
    print("|---|---|---|---|---|---|---|")
    for path in files:
        c = parity.certify(path)
        print(
            f"| {c.model} | {c.parameters:,} | {max(c.outputs.values()):.1e} | "
            f"{max(c.losses.values()):.1e} | {max(c.gradients.values()):.1e} | "
            f"{c.detections:.1%} | {c.mask_areas:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
