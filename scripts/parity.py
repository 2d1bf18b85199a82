"""Print parity certificates: python scripts/parity.py GOLDEN.json... (or folders).

Without arguments, every golden of YOLACT and of a backbone below $DETJAX_GOLDENS.
"""

import os
import pathlib
import sys

from detjax import backbones, parity


def cell(errors, form="{:.1e}"):
    """The largest of some errors, or one figure; empty where there is none."""
    if errors is None:
        return ""
    return form.format(max(errors.values()) if isinstance(errors, dict) else errors)


def main(paths):
    root = pathlib.Path(os.environ.get("DETJAX_GOLDENS", "../shared/goldens"))
    named = [root / "torchvision" / f"{name}.json" for name in backbones.FAMILIES]
    given = [pathlib.Path(p) for p in paths] or [root / "yolact", *named]
    files = [
        f for p in given for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])
    ]
    print("| model | parameters | outputs | losses | gradients | detections | masks |")
    print("|---|---|---|---|---|---|---|")
    for path in filter(pathlib.Path.exists, files):
        yolact = path.stem.startswith("yolact")
        c = (parity.certify if yolact else parity.certify_classifier)(path)
        print(
            f"| {c.model} | {c.parameters:,} | {cell(c.outputs)} | {cell(c.losses)} | "
            f"{cell(c.gradients)} | {cell(c.detections, '{:.1%}')} | "
            f"{cell(c.mask_areas)} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
