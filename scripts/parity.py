"""Print parity certificates: python scripts/parity.py GOLDEN.json... (or folders).

Without arguments, every golden below $DETJAX_GOLDENS. What a golden is of stands in it;
those of models that are not here are passed over.
"""

import os
import pathlib
import sys

from detjax import backbones, goldens, parity, parity_rcnn


def cell(errors, form="{:.1e}"):
    """The largest of some errors, or one figure; empty where there is none."""
    if errors is None:
        return ""
    return form.format(max(errors.values()) if isinstance(errors, dict) else errors)


def way(model):
    """What certifies `model`, as the goldens call it; None where nothing does."""
    if model in parity_rcnn.GOLDENS:
        return parity_rcnn.certify
    if model in backbones.FAMILIES:
        return parity.certify_classifier
    return parity.certify if model.startswith("yolact") else None


def main(paths):
    root = pathlib.Path(os.environ.get("DETJAX_GOLDENS", "../shared/goldens"))
    models: dict[pathlib.Path, str] = {}
    for path in map(pathlib.Path, paths or [root / "yolact", root / "torchvision"]):
        models |= goldens.below(path)
    print(
        "| model | parameters | outputs | losses | gradients | proposals | detections "
        "| masks |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for path, model in models.items():
        certify = way(model)
        if certify is None:
            continue
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
