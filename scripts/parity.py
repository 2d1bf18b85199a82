"""Print parity certificates: python scripts/parity.py GOLDEN.json... (or folders).

Without arguments, every golden of YOLACT, of a two-stage detector and of a backbone
below $DETJAX_GOLDENS.
"""

import os
import pathlib
import sys

from detjax import backbones, parity, parity_rcnn


def cell(errors, form="{:.1e}"):
    """The largest of some errors, or one figure; empty where there is none."""
    if errors is None:
        return ""
    return form.format(max(errors.values()) if isinstance(errors, dict) else errors)


def certify(path):
    """The certificate of the golden at `path`, whatever its family."""
    if path.stem in parity_rcnn.GOLDENS:
        return parity_rcnn.certify(path)
    yolact = path.stem.startswith("yolact")
    return (parity.certify if yolact else parity.certify_classifier)(path)


def main(paths):
    root = pathlib.Path(os.environ.get("DETJAX_GOLDENS", "../shared/goldens"))
    stems = [*parity_rcnn.GOLDENS, *backbones.FAMILIES]
    named = [root / "torchvision" / f"{name}.json" for name in stems]
    given = [pathlib.Path(p) for p in paths] or [root / "yolact", *named]
    files = [
        f for p in given for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])
    ]
    print(
        "| model | parameters | outputs | losses | gradients | proposals | detections "
        "| masks |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path in filter(pathlib.Path.exists, files):
        c = certify(path)
        print(
            f"| {c.model} | {c.parameters:,} | {cell(c.outputs)} | {cell(c.losses)} | "
            f"{cell(c.gradients)} | {cell(c.proposals, '{:.1%}')} | "
            f"{cell(c.detections, '{:.1%}')} | "
            f"{cell(c.mask_areas)} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
