"""Import published weights, to predict with or to start a run from.

    --source=yolact yolact_resnet50.pth --model=yolact_resnet50 --out=DIR
    --source=torchvision resnet50.pth --model=resnet50 --classes=names.txt --out=DIR
    --source=darknet yolov3.weights --model=yolov3.cfg --out=DIR

Files of darknet come with their cfg; one that ends before the last layer, such as
darknet53.conv.74, gives a network whose other layers begin anew.

A folder works as --workdir of a prediction, be it of a detector or of a classifier, and
as train.init_from of a config.
"""

from absl import flags

from detjax import cli, import_weights
from detjax.errors import UserError

SOURCE = flags.DEFINE_string("source", None, "Who wrote the file.", required=True)
MODEL = flags.DEFINE_string(
    "model", None, "The model, backbone or cfg file.", required=True
)
OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
ALLOW = flags.DEFINE_string("allow", None, "Regex of names that need not fit.")
CLASSES = flags.DEFINE_list(
    "classes", None, "Names of classes, if not COCO's, or a file of them, a line each."
)


def main() -> None:
    cli.launch(_import, __doc__)


def _import(paths: list[str]) -> None:
    if len(paths) != 1:
        raise UserError(f"give one weight file; {len(paths)} were given")
    report = import_weights.import_weights(
        paths[0],
        source=SOURCE.value,
        model=MODEL.value,
        out=OUT.value,
        allow=ALLOW.value,
        classes=CLASSES.value,
    )
    print(f"{len(report.loaded)} arrays imported into {OUT.value}")
    for title, names in (
        ("left at initialisation", report.left),
        ("not used", report.unused),
    ):
        if names:
            print(f"{title}:\n  " + "\n  ".join(names))
