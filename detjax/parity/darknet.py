"""Darknet's networks, by goldens of its C code.

A golden has the sections of its network, so that none of darknet's files is needed.
"""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from detjax.models.darknet import cfg as cfgs
from detjax.models.darknet import ends
from detjax.models.darknet.cfg import Cfg
from detjax.models.darknet.detect import Detect
from detjax.models.darknet.detection import Detection
from detjax.models.darknet.net import Net
from detjax.models.darknet.region import Region
from detjax.models.darknet.tree import Tree
from detjax.ops import boxes
from detjax.parity import certificate, goldens
from detjax.parity.certificate import Certificate
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.types import Detections
from detjax.weights import convert
from detjax.weights import darknet as files

SOURCE = "darknet"
ORIGINS = (SOURCE,)
CLASSIFIERS = (
    *("alexnet", "cifar", "darknet", "darknet19", "darknet19_448", "darknet53"),
    *("darknet53_448", "darknet9000", "densenet201", "extraction", "resnet18"),
    *("resnet34", "resnet50", "resnet101", "resnet152", "resnext50", "tiny", "vgg-16"),
)
DETECTORS = (
    *("yolo9000", "yolov1", "yolov1-tiny", "yolov2", "yolov2-tiny", "yolov2-voc"),
    *("yolov2-tiny-voc", "yolov3", "yolov3-openimages", "yolov3-spp", "yolov3-tiny"),
    "yolov3-voc",
)
MODELS = {name: name for name in (*CLASSIFIERS, *DETECTORS)}
# Of the sides of the image, and of 1.
WITHIN = {"boxes": 1e-3, "scores": 1e-4}
# More than any golden has.
MOST = 500


class Answers(NamedTuple):
    """What our network has for a golden, in darknet's layout and units."""

    parameters: int
    outputs: dict[str, np.ndarray]
    file: str  # sha256 of the weight file
    detections: list[list[float]] | None  # as the golden has them, without objectness


def certify(golden: Golden) -> Certificate:
    """`golden` against detjax: weight file, layers and detections.

    Raises ValueError where names or shapes do not fit.
    """
    facts, ours = golden.facts, _answers(golden)
    matched = None
    if ours.detections is not None:
        expected = _columns(facts["detections"])
        found = _columns(ours.detections)
        twins = certificate.twins(found, expected, WITHIN)
        matched = certificate.share([twins], [len(ours.detections)])
    return Certificate(
        golden.name,
        ours.parameters,
        facts["parameters"],
        {
            name: summary_error(ours.outputs[name], expected)
            for name, expected in facts["outputs"].items()
        },
        detections=matched,
        file=ours.file == facts["weights_file_sha256"],
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    ours = _answers(golden)
    held = {
        "parameters": ours.parameters,
        "outputs": {name: summary(value) for name, value in ours.outputs.items()},
        "weights_file_sha256": ours.file,
    }
    return held | ({} if ours.detections is None else {"detections": ours.detections})


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's network."""
    image = jax.ShapeDtypeStruct(facts["input"]["shape"], jnp.float32)
    made = dict(jax.eval_shape(Net(_cfg(facts)).init, jax.random.key(0), image))
    return made.pop("params"), made


def _cfg(facts: dict[str, Any]) -> Cfg:
    return cfgs.parse(
        "\n".join(
            f"[{kind}]\n" + "".join(f"{k}={v}\n" for k, v in options.items())
            for kind, options in facts["sections"]
        ),
        facts["model"],
    )


def _answers(golden: Golden) -> Answers:
    facts = golden.facts
    cfg, (params, state) = _cfg(facts), shapes(facts)
    manifest = files.manifest(params, state)
    data = files.written(golden.state_dict, manifest)
    # What is read again, and not what was drawn.
    arrays, _ = files.parsed(data, manifest)
    variables, statistics, _ = convert.load(arrays, params, state, source=SOURCE)
    images = goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"])
    heads = ends.heads(_treeless(cfg)) if cfg.heads else {}
    heads = {index: _with_tree(head, facts) for index, head in heads.items()}
    wanted = _wanted(facts, cfg)

    @jax.jit
    def run(variables, images):
        outputs: Any = Net(cfg).apply(variables, images)
        held = {
            index: _activated(heads[index], x[0]) if index in heads else x[0]
            for index, x in enumerate(outputs)
            if index in wanted
        }
        if "threshold" not in facts:
            return held, None
        raws = {index: outputs[index][0] for index in heads}
        detect = Detect(facts["threshold"], facts["nms"], 10 * MOST, MOST)
        return held, detect(ends.found(heads, raws, images.shape[1:3]))

    held, found = run({"params": variables, **statistics}, images)
    return Answers(
        certificate.size(params),
        {f"layer.{index}": _memory(value) for index, value in held.items()},
        hashlib.sha256(data).hexdigest(),
        found and _detections(found, facts, heads),
    )


def _wanted(facts: dict[str, Any], cfg: Cfg) -> set[int]:
    """The layers whose outputs a golden has; of a new one those of all."""
    if "outputs" not in facts:
        return set(range(len(cfg.layers)))
    return {int(name.partition(".")[2]) for name in facts["outputs"]}


def _treeless(cfg: Cfg) -> Cfg:
    """`cfg` without the file of a tree, which a golden has itself."""
    layers = tuple(
        section.having(tree="") if "tree" in section else section
        for section in cfg.layers
    )
    return Cfg(cfg.net, layers)


def _with_tree(head: ends.Head, facts: dict[str, Any]) -> ends.Head:
    """`head` with the golden's tree, if it has one."""
    if "tree_parents" not in facts or not isinstance(head, Region):
        return head
    tree = Tree(tuple(facts["tree_parents"]))
    return dataclasses.replace(head, tree=tree, tree_threshold=facts["hier_threshold"])


def _activated(head: ends.Head, raw: Any) -> Any:
    """A head's output as darknet leaves it."""
    if isinstance(head, Detection):
        return raw
    parts = raw.reshape(*raw.shape[:2], -1, 5 + head.classes)
    centre, sides, objectness, classes = jnp.split(parts, (2, 4, 5), axis=-1)
    if isinstance(head, Region) and head.tree is not None:
        # Of a node if the one above it is true.
        classes = jnp.exp(head.tree.log_softmax(classes))
    elif isinstance(head, Region) and head.softmax:
        classes = jax.nn.softmax(classes)
    else:
        classes = jax.nn.sigmoid(classes)
    parts = jax.nn.sigmoid(centre), sides, jax.nn.sigmoid(objectness), classes
    return jnp.concatenate(parts, axis=-1).reshape(raw.shape)


def _memory(value: Any) -> np.ndarray:
    """A layer's output [h w c] or [n] channels first."""
    value = np.asarray(value)
    return np.moveaxis(value, -1, 0) if value.ndim == 3 else value.reshape(-1, 1, 1)


def _detections(found: Detections, facts: dict[str, Any], heads) -> list[list[float]]:
    """Class, probability and box (centre, width, height) in shares of the image.

    Of a letterboxed image the borders are taken off, but for YOLOv1's, which stretches.
    """
    size = facts["input"]["shape"][1:3]
    some = np.asarray(found.valid)
    box = np.asarray(boxes.xyxy_to_cxcywh(found.boxes), np.float64)[some]
    shares = box / np.array([size[1], size[0], size[1], size[0]])
    if not any(isinstance(head, Detection) for head in heads.values()):
        (h, w), (image_w, image_h) = size, facts["image_size"]
        inner = np.array([w, image_h * w // image_w])
        if w * image_h >= h * image_w:
            inner = np.array([image_w * h // image_h, h])
        part = inner / np.array([w, h])
        shares[:, :2] = (shares[:, :2] - (1 - part) / 2) / part
        shares[:, 2:] /= part
    columns = np.asarray(found.labels)[some], np.asarray(found.scores)[some]
    return [
        [int(label), float(score), *map(float, row)]
        for label, score, row in zip(*columns, shares, strict=True)
    ]


def _columns(detections: list[list[float]]) -> dict[str, np.ndarray]:
    """Detections as arrays by name; darknet's goldens have the objectness too."""
    rows = np.array(detections, np.float64).reshape(len(detections), -1)
    return {"labels": rows[:, 0], "scores": rows[:, 1], "boxes": rows[:, -4:]}
