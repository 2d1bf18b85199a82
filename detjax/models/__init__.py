"""One family a file; `make` finds a model by the name of its constructor."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from detjax import settings
from detjax.errors import UserError
from detjax.models import (
    centernet,
    classifier,
    cornernet,
    darknet,
    deconvnet,
    deeplab,
    dense_classifier,
    earlier,
    fcn_resnet,
    fcn_vgg,
    fcos,
    gscnn,
    hed,
    hourglass_pose,
    localiser,
    lraspp,
    pspnet,
    rcnn,
    retinanet,
    segnet,
    semantic_fpn,
    sliding_window,
    ssd,
    two_stage,
    unet,
    yolact,
)
from detjax.models.ema import ema as averaged
from detjax.types import Model

TWO_STAGES: dict[str, Callable[..., Model]] = {
    "fast_rcnn": two_stage.fast_rcnn,
    "faster_rcnn": two_stage.faster_rcnn,
    "faster_rcnn_vgg16": two_stage.faster_rcnn_vgg16,
    "faster_rcnn_c4": two_stage.faster_rcnn_c4,
    "mask_rcnn": two_stage.mask_rcnn,
    "keypoint_rcnn": two_stage.keypoint_rcnn,
    "ms_rcnn": two_stage.ms_rcnn,
    **{
        name: partial(two_stage.two_stage, **kwargs)
        for name, kwargs in two_stage.ORIGINALS.items()
    },
}
ONE_STAGES: dict[str, Callable[..., Model]] = {
    "retinanet": retinanet.retinanet,
    "fcos": fcos.fcos,
    "ssd": ssd.ssd,
    "ssd300": ssd.ssd300,
    "ssd512": ssd.ssd512,
    **{
        name: partial(make, **kwargs)
        for make, originals in (
            (retinanet.retinanet, retinanet.ORIGINALS),
            (fcos.fcos, fcos.ORIGINALS),
            (ssd.ssd, ssd.ORIGINALS),
        )
        for name, kwargs in originals.items()
    },
}
OF_POINTS: dict[str, Callable[..., Model]] = {
    "cornernet": cornernet.cornernet,
    "centernet": centernet.centernet,
    "centernet_dla": centernet.centernet_dla,
    "centernet_hourglass": centernet.centernet_hourglass,
    "hourglass_pose": hourglass_pose.hourglass_pose,
    **{
        name: partial(make, **kwargs)
        for make, originals in (
            (cornernet.cornernet, cornernet.ORIGINALS),
            (centernet.centernet, centernet.ORIGINALS),
            (centernet.centernet_dla, centernet.DLA),
            (centernet.centernet_hourglass, centernet.HOURGLASS),
        )
        for name, kwargs in originals.items()
    },
}
DETECTORS: dict[str, Callable[..., Model]] = {
    "yolact": yolact.yolact,
    "rcnn": rcnn.rcnn,
    "sliding_window": sliding_window.sliding_window,
    "darknet": darknet.darknet,
    **{name: partial(darknet.yolo, network=name) for name in darknet.NETWORKS},
    **{
        name: partial(yolact.yolact, **kwargs)
        for name, kwargs in yolact.ORIGINALS.items()
    },
    **TWO_STAGES,
    **ONE_STAGES,
    **OF_POINTS,
}
CLASSIFIERS: dict[str, Callable[..., Model]] = {
    "classifier": classifier.classifier,
    "darknet_classifier": darknet.darknet_classifier,
}
LOCALISERS: dict[str, Callable[..., Model]] = {"localiser": localiser.localiser}
SEGMENTERS: dict[str, Callable[..., Model]] = {
    "semantic_fpn": semantic_fpn.semantic_fpn,
    "fcn_vgg": fcn_vgg.fcn_vgg,
    "segnet": segnet.segnet,
    "segnet_basic": segnet.segnet_basic,
    "deconvnet": deconvnet.deconvnet,
    "unet": unet.unet,
    "dense_classifier": dense_classifier.dense_classifier,
    "fcn_resnet": fcn_resnet.fcn_resnet,
    "deeplabv3": deeplab.deeplabv3,
    "deeplabv3plus": deeplab.deeplabv3plus,
    "lraspp": lraspp.lraspp,
    "pspnet": pspnet.pspnet,
    "gscnn": gscnn.gscnn,
    **{
        name: partial(make, **kwargs)
        for make, originals in (
            (fcn_vgg.fcn_vgg, fcn_vgg.ORIGINALS),
            (fcn_resnet.fcn_resnet, fcn_resnet.ORIGINALS),
            (deeplab.deeplabv3, deeplab.V3),
            (deeplab.deeplabv3plus, deeplab.PLUS),
            (lraspp.lraspp, lraspp.ORIGINALS),
            (pspnet.pspnet, pspnet.ORIGINALS),
        )
        for name, kwargs in originals.items()
    },
}
DENSE: dict[str, Callable[..., Model]] = {
    "dense_fpn": semantic_fpn.dense_fpn,
    "dense_unet": unet.dense_unet,
    "hed": hed.hed,
}
SCENES: dict[str, Callable[..., Model]] = {"scene_fpn": semantic_fpn.scene_fpn}
BY_TASK = {
    "detection": DETECTORS,
    "classification": CLASSIFIERS,
    "localisation": LOCALISERS,
    "segmentation": SEGMENTERS,
    "dense": DENSE,
    "scene": SCENES,
}
MODELS = {name: make for found in BY_TASK.values() for name, make in found.items()}
# The side of the square input that an original's weights were trained at.
SIDES = {name: 550 for name in yolact.ORIGINALS} | {
    "yolact_im400": 400,
    "yolact_im700": 700,
    "ssd300_vgg16": 300,
    **dict.fromkeys((*fcn_resnet.ORIGINALS, *deeplab.V3, *lraspp.ORIGINALS), 520),
    **dict.fromkeys(deeplab.PLUS, 513),
    **dict.fromkeys((*centernet.ORIGINALS, *centernet.DLA, *centernet.HOURGLASS), 512),
    **dict.fromkeys(pspnet.ORIGINALS, 473),
}
# Those of two stages, RetinaNet and FCOS were trained at a short side of 800 pixels,
# the picture's shape kept: one of 3 : 4 letterboxed into this square is as large.
LETTERBOXED = {
    name: 1088
    for originals in (two_stage.ORIGINALS, retinanet.ORIGINALS, fcos.ORIGINALS)
    for name in originals
} | {
    "hed": 512,
    # Trained on crops of 511, and tested on pictures of COCO as large as they are.
    **dict.fromkeys(cornernet.ORIGINALS, 640),
}
# What the models of the task "dense" answer, where they answer one thing alone.
QUANTITIES = {"hed": "edges"}
# By model, the settings that earlier versions called otherwise.
EARLIER: dict[str, earlier.Table] = {
    **dict.fromkeys(("yolact", *yolact.ORIGINALS), yolact.EARLIER),
    **dict.fromkeys(TWO_STAGES, two_stage.EARLIER),
    "rcnn": rcnn.EARLIER,
}


def wrapped(model: Model, *, ema: settings.Fraction | None = None) -> Model:
    """`model` with what every family can have.

    ema  decay of a moving average of the weights, which predicts; see `models.ema`
    """
    return model if ema is None else averaged(model, ema)


# The keywords that every model takes besides those of its constructor.
SHARED = settings.keywords(wrapped)


def make(name: str, **kwargs: Any) -> Model:
    """The model called `name`; keywords are those of its constructor and `wrapped`.

    Stages may be given as dicts of settings and so on, see `settings.check`.

    Raises UserError for an unknown name, and for settings that do not fit.
    """
    if name not in MODELS:
        raise UserError(
            f"model.name={name!r} is no model{settings.nearest(name, MODELS)}; choose "
            f"one of {', '.join(sorted(MODELS))}"
        )
    shared = {key: kwargs.pop(key) for key in SHARED if key in kwargs}
    checked = settings.check_all("model", MODELS[name], kwargs)
    model = MODELS[name](**settings.build(MODELS[name], checked))
    return wrapped(model, **settings.check_all("model", wrapped, shared))


def standing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that need no file: with what its files hold."""
    return darknet.standing(settings)


def current(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings `given` of the model called `name`, by their present names.

    Raises UserError where one is given by an earlier name and the present one.
    """
    return earlier.renamed(MODELS[name], EARLIER.get(name, {}), given)


def task_of(name: str) -> str:
    """The name of the task that the model called `name` answers."""
    return next(task for task, found in BY_TASK.items() if name in found)
