"""Measure detjax against its peers: python scripts/bench.py NAME... --json=FILE.

Rows have the median of several runs after a warm-up, ours and the peer's in turn, but
for coco_eval's peer and cold_start, which run once; `ratio` is peer / ours, `of roof`
the part of the time that the layers need at the least on this device. A peer that
cannot be loaded leaves its cells empty. Peers come with the extra `bench`.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benches import (  # noqa: E402
    accelerator,
    attribution,
    classify,
    corners,
    explain,
    host,
    loader,
    networks,
    one_stage,
    ops,
    segmentation,
    timing,
)

BENCHES = {
    f.__name__: f
    for f in (
        ops.fast_nms,
        ops.greedy_nms,
        ops.roi_align,
        networks.yolact,
        networks.two_stage,
        one_stage.one_stage,
        corners.corners,
        classify.classify,
        classify.convolutions,
        attribution.attribution,
        segmentation.segmentation,
        explain.explain,
        host.coco_eval,
        loader.loader,
        host.checkpoint,
        host.cold_start,
        accelerator.accelerator,
    )
}


def main(argv=None):
    listed = "\n".join(
        f"  {name:13} {' '.join(bench.__doc__.split())}"
        for name, bench in BENCHES.items()
    )
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", choices=[*BENCHES, "all"])
    parser.add_argument("--json", help="where the rows go")
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="accelerator: tiny networks, to see that everything runs",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=9,
        help="accelerator: what is not begun by then is left out (default: 9)",
    )
    given = parser.parse_args(argv)
    rows = []
    print(timing.HEADER)
    for name in BENCHES if "all" in given.names else given.names:
        options = {}
        if name == "accelerator":
            options = {"tiny": given.tiny, "minutes": given.minutes}
        for found in BENCHES[name](**options):
            rows.append(found.json())
            print(found, flush=True)
            if given.json:
                pathlib.Path(given.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
