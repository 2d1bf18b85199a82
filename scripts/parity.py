"""Print parity certificates: python scripts/parity.py GOLDEN.json... (or folders).

Without arguments, every golden below $DETJAX_GOLDENS. Goldens name their model; those
of unknown models are skipped. With `--write`, goldens of our own code
(tests/goldens_tiny) are computed again instead.
"""

import argparse
import os

from detjax import parity
from detjax.parity import own


def cell(errors, form="{:.1e}"):
    """The largest of some errors, or one figure; empty where there is none."""
    if errors is None:
        return ""
    return form.format(max(errors.values()) if isinstance(errors, dict) else errors)


def show(paths):
    """Prints a table, a row for each golden."""
    print(
        "| model | parameters | outputs | losses | gradients | proposals | detections "
        "| masks | weight file | pixels moved "
        "| images |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for path in paths:
        c = parity.certify(path)
        print(
            f"| {c.model} | {c.parameters:,} | {cell(c.outputs)} | {cell(c.losses)} | "
            f"{cell(c.gradients)} | {cell(c.proposals, '{:.1%}')} | "
            f"{cell(c.detections, '{:.1%}')} | "
            f"{cell(c.mask_areas)} | "
            f"{ {None: '', True: 'equal', False: 'differs'}[c.file] } | "
            f"{cell(c.moved, '{}')} | {c.images or ''} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="files, or folders of them")
    parser.add_argument("--write", action="store_true", help="our own goldens, anew")
    given = parser.parse_args()
    root = os.environ.get("DETJAX_GOLDENS", "../shared/goldens")
    if given.write and not given.paths:
        parser.error("--write needs the goldens to write, such as tests/goldens_tiny")
    found = [path for each in given.paths or [root] for path in parity.known(each)]
    if given.write:
        for path in found:
            own.rewrite(path)
            print(f"wrote {path}")
    else:
        show(found)


if __name__ == "__main__":
    main()
