"""Write the weights of a run as a file of darknet, and its cfg beside it.

    --workdir=DIR --out=yolo.weights [--best]

For runs and imports of darknet, darknet_classifier and the YOLO models. What was
imported is written byte for byte.
"""

from absl import flags

from detjax import cli, export_darknet

WORKDIR, BEST = cli.workdir_flag(), cli.best_flag()
OUT = flags.DEFINE_string("out", None, "The file to write.", required=True)


def main() -> None:
    cli.launch(_export, __doc__)


def _export(_: list[str]) -> None:
    weights, cfg = export_darknet.export(WORKDIR.value, OUT.value, BEST.value)
    print(f"wrote {weights} ({weights.stat().st_size:,} bytes) and {cfg}")
