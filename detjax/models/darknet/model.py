"""Darknet's detectors: networks of a cfg that end with heads.

b images, p places of all heads, c classes
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors as flax_errors

from detjax.errors import UserError
from detjax.models.darknet import ends, seen
from detjax.models.darknet.cfg import Cfg
from detjax.models.darknet.detect import Detect
from detjax.models.darknet.detection import Detection
from detjax.models.darknet.net import Net
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.start import initialiser
from detjax.ops import boxes
from detjax.ops import fitting as shapes
from detjax.settings import Count, Dtype, Fraction, Location, NotEmpty, Positive
from detjax.types import Batch, Inputs, Model, PriorLevel, Spec
from detjax.types import Priors as PlacedPriors


@dataclasses.dataclass(frozen=True)
class Priors:
    """The anchors of a network, in place of those of its cfg.

    sizes: (w, h) of each in pixels of the input, as many as the cfg has and in its
        order, which is by rising size; the cfg's if None.
    positive: the IoU of shapes from which an anchor is said to fit an object, in
        reports on anchors; learning does not ask for it.
    """

    sizes: Annotated[tuple[tuple[Positive, Positive], ...], NotEmpty()] | None = None
    positive: Fraction = 0.5


def darknet(
    *,
    cfg: Location,
    num_classes: Count | None = None,
    priors: Priors = Priors(),
    detect: Detect = Detect(),
    tree: Location | None = None,
    pixels: Pixels = "unit",
    dtype: Dtype = "float32",
) -> Model:
    """The detector of a cfg file of darknet: YOLO's of all versions.

    cfg: the file; or its text, of several lines.
    num_classes: the classes that are told apart, if not those of the cfg: heads and the
        layers before them are then made for so many.
    tree: the file of the tree of the classes, where the cfg names one that is not to be
        found from its own folder.
    pixels: how images are normalised: as darknet does to 0..1 ("unit"), in other
        models' ways, or not, because float images are already.
    dtype: of activations; parameters and losses are float32.

    See `detector` for the loss. Raises UserError if the file is no cfg of a detector.
    """
    return detector(
        ends.described(cfg),
        num_classes=num_classes,
        priors=priors,
        detect=detect,
        tree=tree,
        pixels=pixels,
        dtype=dtype,
    )


def detector(
    cfg: Cfg,
    *,
    num_classes: int | None = None,
    priors: Priors = Priors(),
    detect: Detect = Detect(),
    tree: Location | None = None,
    pixels: Pixels = "unit",
    dtype: Dtype = "float32",
) -> Model:
    """The detector of the sections `cfg`; keywords are those of `darknet`.

    The loss is the sum over the places of an image, and the mean over the real images
    of a batch, as darknet's, which divides its learning rate by the images of a step: a
    cfg's learning rate and decay mean the same here. Batch norm has darknet's running
    statistics. The state counts the images that were seen, which the first phase of
    [region] asks for and weight files carry.

    Raises UserError if `cfg` is no detector's.
    """
    if num_classes is not None and cfg.heads and num_classes != cfg.classes:
        cfg = cfg.with_classes(num_classes)
    if priors.sizes is not None:
        cfg = with_anchors(cfg, priors.sizes)
    heads = ends.heads(cfg, tree, detect.tree_threshold)
    count = next(iter(heads.values())).classes
    for head in heads.values():
        ends.check_tree(getattr(head, "tree", None), count)
    net = Net(cfg, jnp.dtype(dtype), pixels)

    def init(key, images):
        params, state = initialiser(net)(key, images)
        return params, {**state, seen.NAME: seen.held()}

    def loss(params, state, batch: Batch, key):
        images, valid = batch.inputs.images, batch.inputs.view.valid
        statistics = seen.without(state)
        with fitting():
            outputs, updated = net.apply(
                {"params": params, **statistics},
                images,
                train=True,
                mutable=[*statistics],
                rngs={"dropout": key},
            )
        real = batch.target.valid & valid[:, None]
        count = jnp.sum(valid)
        # Darknet counts a batch before it learns it.
        counted = seen.after(state, count)
        each = each_image(
            functools.partial(ends.losses, heads, size=images.shape[1:3]),
            in_axes=(0, 0, 0, None),
        )(
            ends.read_by(heads, outputs, cfg),
            dataclasses.replace(batch.target, valid=real),
            windows(batch.inputs),
            seen.number(counted),
        )
        box, objectness, classes, positives = (
            jnp.sum(jnp.where(valid, part, 0)) for part in each
        )
        parts = {"box": box, "objectness": objectness, "class": classes}
        parts = {k: x / jnp.maximum(count, 1) for k, x in parts.items()}
        metrics = {**parts, "positives": positives}
        return sum(parts.values()), ({**updated, seen.NAME: counted}, metrics)

    def predict(params, state, inputs: Inputs):
        images = inputs.images
        statistics = seen.without(state)
        with fitting():
            outputs: Any = net.apply({"params": params, **statistics}, images)

        def one(raws, window):
            found = detect(ends.found(heads, raws, images.shape[1:3]))
            return dataclasses.replace(found, boxes=boxes.clip(found.boxes, window))

        raws = ends.read_by(heads, outputs, cfg)
        return each_image(one)(raws, windows(inputs))

    def placed(size):
        return placed_priors(cfg, priors.positive, size)

    spec = Spec("detection", count, groups=groups(map(cfg.before, cfg.heads)))
    anchored = not any(isinstance(head, Detection) for head in heads.values())
    return Model(spec, init, loss, predict, net, priors=placed if anchored else None)


def groups(last: Iterable[int]) -> dict[str, str]:
    """Parts of a network whose layers `last` are those of its heads, by name."""
    listed = "|".join(map(str, sorted(set(last))))
    return {"backbone": rf"^(?!({listed})\.)", "head": rf"^({listed})\."}


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """Context in which weights for inputs of another size are a sentence."""
    try:
        yield
    except flax_errors.ScopeParamShapeError as error:
        raise UserError(
            "the weights are of another size of input: a network with [connected] or "
            "[local] layers, such as YOLOv1, sees inputs of the size that it learnt "
            f"with; set data.size ({str(error).partition('. (')[0]})"
        ) from None


def anchors(
    cfg: Cfg, size: tuple[int, int]
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """All anchors (w, h), and the (w, h) in pixels of their unit at `size` (h, w)."""
    at = cfg.heads[0]
    numbers = cfg.layers[at].numbers("anchors")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if cfg.layers[at].kind != "region":
        return pairs, (1.0, 1.0)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    net = Net(cfg)
    outputs: Any = jax.eval_shape(
        lambda image: net.init_with_output(jax.random.key(0), image)[0], image
    )
    h, w = outputs[at].shape[1:3]
    return pairs, (size[1] / w, size[0] / h)


def with_anchors(cfg: Cfg, sizes: Sequence[tuple[float, float]]) -> Cfg:
    """`cfg` with anchors of `sizes` (w, h) in pixels, at the size of input of its own.

    Raises UserError where it has none, or another number of them.
    """
    layers = list(cfg.layers)
    for at in cfg.heads:
        count = layers[at].whole("num", 1)
        if layers[at].kind == "detection" or count != len(sizes):
            layers[at].refuse(
                f"it has {0 if layers[at].kind == 'detection' else count} anchors, "
                f"model.priors.sizes {len(sizes)}"
            )
        size = cfg.net.whole("height"), cfg.net.whole("width")
        w, h = anchors(cfg, size)[1]
        text = ",".join(f"{x / w:.6g},{y / h:.6g}" for x, y in sizes)
        layers[at] = layers[at].having(anchors=text)
    return dataclasses.replace(cfg, layers=tuple(layers))


def placed_priors(cfg: Cfg, positive: float, size: tuple[int, int]) -> PlacedPriors:
    """The anchors of `cfg` for inputs of `size` (h, w): at every pixel.

    A head learns where in its cell a box is centred, so that an anchor's place never
    keeps an object from it.
    """
    pairs, unit = anchors(cfg, size)
    side = np.array(pairs, np.float64) * unit
    level = PriorLevel(np.concatenate([-side, side], 1) / 2, size, (1.0, 1.0), 0.5)

    def fitted(objects: np.ndarray) -> dict[str, Any]:
        held = np.maximum(objects[:, 2:] - objects[:, :2], 1e-3)
        k = len(pairs)
        found = shapes.kmeans(held, min(k, len(held)))[-1]
        # Fewer objects than anchors tell nothing of these.
        better = found if len(found) == k else side
        return {"priors.sizes": tuple(map(tuple, np.round(better, 2).tolist()))}

    return PlacedPriors((level,), positive, "priors.positive", fitted)
