"""R-CNN: regions with CNN features (Girshick et al., CVPR 2014).

    b images, p proposals of each, n objects, c classes
    s        side of a crop
    q        candidates of one image: its proposals, then its objects
    k        crops that the network sees at once
    f, g     features that are classified, and that boxes are regressed from

Boxes that something else proposes are cut out, stretched, and classified one by one. A
network is fine-tuned to tell the classes and background apart; then `finish` trains one
linear SVM a class on its features, and a box regression a class by ridge regression.
"""

import functools
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from detjax import backbones, losses
from detjax.errors import UserError
from detjax.nn.images import normalize
from detjax.nn.regions import Seen, gathered, solve
from detjax.ops import assign, boxes, nms
from detjax.ops.warp import warp
from detjax.types import Array, Batch, Detections, Model, Objects, Proposals


class Outputs(NamedTuple):
    """What the network says of k crops."""

    logits: Array  # [k c+1], the background last
    pooled: Array  # [k f]: the last features' mean, fc7 of AlexNet
    spatial: Array  # [k g]: the last features of more than a pixel, pool5 of AlexNet


class Net(linen.Module):
    """Crops [k s s 3], normalised -> `Outputs`."""

    num_classes: int
    backbone: str
    backbone_width: int | None
    norm: str
    dtype: Any

    @linen.compact
    def __call__(self, crops, train: bool = False) -> Outputs:
        width = {"width": self.backbone_width} if self.backbone_width else {}
        features = backbones.make(
            self.backbone, **width, norm=self.norm, dtype=self.dtype, name="backbone"
        )(crops.astype(self.dtype), train)
        maps = [x.astype(jnp.float32) for x in features]
        pooled = maps[-1].mean(axis=(1, 2))
        wide = [x for x in maps if x.shape[1] * x.shape[2] > 1] or maps
        logits = linen.Dense(self.num_classes + 1, name="cls_score")(pooled)
        return Outputs(logits, pooled, wide[-1].reshape(len(crops), -1))


class Windows(NamedTuple):
    """Boxes of a whole batch on one tall picture, its images below one another."""

    picture: Array  # [b*h w 3]
    boxes: Array  # [. 4]
    frames: Array  # [. 4]: the window of each box's own image


def stacked(images: Array, found: Array, windows: Array, index: Array) -> Windows:
    """Boxes `found` [. 4] of the images `index` [.] of a batch, as `Windows`."""
    b, h, w, d = images.shape
    down = jnp.stack([jnp.zeros(b), jnp.arange(b) * h], 1)[index]
    down = jnp.tile(down, 2).astype(jnp.float32)
    frames = windows[index] + down
    return Windows(images.reshape(b * h, w, d), found + down, frames)


def whole(images: Array) -> Array:
    """Windows [b 4] that are all of the images."""
    b, h, w = images.shape[:3]
    return jnp.tile(jnp.array([0.0, 0.0, w, h]), (b, 1))


def candidates(proposals: Proposals, objects: Objects) -> Proposals:
    """The proposals and the objects that are learnt, [q]."""
    return Proposals(
        jnp.concatenate([proposals.boxes, objects.boxes]),
        jnp.concatenate([proposals.valid, assign.learnable(objects)]),
    )


def judge(
    found: Proposals,
    objects: Objects,
    *,
    num_classes: int,
    positive: float,
    negative: float,
) -> tuple[Array, Array]:
    """Labels [q] of the candidates, c for background; and which [q] may be learnt.

    A candidate has the class of the object that it overlaps most, from the IoU
    `positive` on. Below `negative` it is background; those between, and background that
    lies in a crowd for the most part, are not learnt.
    """
    overlap = jnp.where(
        assign.learnable(objects), boxes.iou(found.boxes, objects.boxes), 0.0
    )
    best = overlap.max(axis=1)
    hit = best >= positive
    labels = jnp.where(hit, objects.labels[overlap.argmax(axis=1)], num_classes)
    crowds = objects.valid & objects.crowd
    inside = jnp.where(crowds, boxes.iou_crowd(found.boxes, objects.boxes), 0.0)
    missed = (best < negative) & (inside.max(axis=1) < 0.5)
    return labels, found.valid & (hit | missed)


def sample(
    key: Array, labels: Array, usable: Array, counts: tuple[int, int], background: int
) -> tuple[Array, Array]:
    """Places of random positives and background, `counts` of each, and which are real.

    labels and usable are of any shape; the places are of their flattened forms. Where
    there are too few, a real one is repeated: batch statistics see nothing else.
    """
    chance = jax.random.uniform(key, (labels.size,))
    places, real = [], []
    for of_kind, count in zip(
        (labels != background, labels == background), counts, strict=True
    ):
        score = jnp.where((usable & of_kind).ravel(), chance, -1.0)
        drawn, place = lax.top_k(score, min(count, labels.size))
        places.append(place)
        real.append(drawn >= 0)
    place, is_real = jnp.concatenate(places), jnp.concatenate(real)
    return jnp.where(is_real, place, place[jnp.argmax(is_real)]), is_real


def by_chunks(
    function: Callable[[Array], Any],
    windows: Windows,
    valid: Array,
    *,
    chunk: int,
    crop: Callable[..., Array],
) -> Any:
    """`function` of all crops [k s s 3], `chunk` at a time; chunks of padding are 0."""
    windows, valid = jax.tree.map(jnp.asarray, (windows, valid))
    total = len(valid)
    chunk = min(chunk, total)
    order = jnp.argsort(~valid, stable=True)
    padded = jnp.concatenate([order, jnp.zeros(-total % chunk, order.dtype)])
    places = padded.reshape(-1, chunk)

    def one(place):
        return function(
            crop(windows.picture, windows.boxes[place], windows.frames[place])
        )

    def some(place):
        nothing = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, place)
        )
        return lax.cond(valid[place].any(), one, lambda _: nothing, place)

    found = lax.map(some, places)
    back = jnp.zeros(total, order.dtype).at[order].set(jnp.arange(total))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[back], found)


def detect(
    scores: Array,
    found: Array,
    valid: Array,
    window: Array,
    *,
    score_threshold: float,
    nms_threshold: float,
    top_k: int,
    max_detections: int,
) -> Detections:
    """Detections of one image, from scores [p c] and boxes [p c 4].

    Boxes are clipped to `window`. Suppression is greedy and class by class, among the
    `top_k` best of each.
    """
    taken = valid[:, None] & (scores >= score_threshold)
    best, place = lax.top_k(
        jnp.where(taken, scores, -jnp.inf).T, min(top_k, len(scores))
    )
    found = jnp.clip(found, jnp.tile(window[:2], 2), jnp.tile(window[2:], 2))
    chosen = jnp.take_along_axis(found.swapaxes(0, 1), place[..., None], axis=1)
    keep = jax.vmap(lambda b, s: nms.greedy(b, s, nms_threshold, s > -jnp.inf))(
        chosen, best
    )
    ranking = jnp.where(keep, best, -jnp.inf).ravel()
    missing = max(max_detections - ranking.size, 0)
    ranking = jnp.pad(ranking, (0, missing), constant_values=-jnp.inf)
    score, index = lax.top_k(ranking, max_detections)
    real = score > -jnp.inf
    index = jnp.where(real, index, 0)
    return Detections(
        boxes=chosen.reshape(-1, 4)[index],
        scores=jnp.where(real, score, 0.0),
        labels=(index // best.shape[1]).astype(jnp.int32),
        valid=real,
    )


def seen(found: Proposals, objects: Objects, *, num_classes: int) -> Seen:
    """The candidates of one image beside its objects."""
    iou = boxes.iou(found.boxes, objects.boxes)
    crowd = boxes.iou_crowd(found.boxes, objects.boxes)
    blurred = jnp.where(objects.crowd, jnp.maximum(iou, crowd), iou)
    classes = jnp.arange(num_classes)
    member = (objects.labels[:, None] == classes) & objects.valid[:, None]
    own = jnp.where(assign.learnable(objects), iou, 0.0)
    nearest = own.argmax(axis=1)
    proposed = jnp.full(len(found.valid) - len(objects.labels), -1)
    return Seen(
        valid=found.valid,
        overlap=jnp.where(member, blurred[..., None], 0.0).max(axis=1),
        truth=jnp.concatenate([proposed, objects.labels]),
        labels=objects.labels[nearest],
        iou=own.max(axis=1),
        deltas=boxes.encode_rcnn(objects.boxes[nearest], found.boxes),
    )


def rcnn(
    *,
    num_classes: int,
    backbone: str = "alexnet",
    backbone_width: int | None = None,
    crop: int = 227,
    padding: int = 16,
    pixels: str = "imagenet",
    norm: str = "frozen",
    positive: float = 0.5,
    negative: float = 0.5,
    num_positives: int = 32,
    num_background: int = 96,
    svm_negative: float = 0.3,
    svm_cost: float = 1e-3,
    ridge_near: float = 0.6,
    ridge_penalty: float = 1000.0,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.3,
    top_k: int = 300,
    max_detections: int = 100,
    chunk: int = 64,
    dtype: Any = "float32",
) -> Model:
    """R-CNN on external proposals; the defaults are the paper's and its code's.

    Each box is seen as a crop of `crop` pixels, of which `padding` on each side show
    its surroundings. A step learns from `num_positives` and `num_background` candidates
    of the batch: those of an IoU from `positive` on, and below `negative`. `chunk`
    crops pass the network at once where all proposals do.

    A score is the sigmoid of the SVM's margin, so 0.5 is its boundary; before `finish`
    has fitted the SVMs it is the softmax's, and boxes are the proposals'. The
    parameters "svm" and "ridge" are 0 until then; they get no gradient and weight decay
    leaves 0 at 0.

    Raises UserError where `padding` fills the crop, and at the first loss or
    prediction without proposals.
    """
    if 2 * padding >= crop:
        raise UserError(f"padding={padding} leaves nothing of a crop of {crop} pixels")
    net = Net(
        num_classes=num_classes,
        backbone=backbone,
        backbone_width=backbone_width,
        norm=norm,
        dtype=jnp.dtype(dtype),
    )
    cut = functools.partial(warp, size=crop, padding=padding)

    def init(key, images):
        crops = jnp.zeros((1, crop, crop, 3))
        variables: Any = net.init(key, crops)
        params = variables.pop("params")
        out: Any = jax.eval_shape(net.apply, {"params": params, **variables}, crops)
        f, g = out.pooled.shape[1], out.spatial.shape[1]
        params["svm"] = {
            "kernel": jnp.zeros((f, num_classes)),
            "bias": jnp.zeros(num_classes),
        }
        params["ridge"] = {
            "kernel": jnp.zeros((num_classes, g, 4)),
            "bias": jnp.zeros((num_classes, 4)),
        }
        return params, variables

    def seen_by_net(params, state, images, windows, found, head):
        """`head` of the outputs for boxes found [b q], a tree of [b q ...]."""
        b, q = found.valid.shape
        windows = whole(images) if windows is None else windows
        views = stacked(
            normalize(images, pixels),
            found.boxes.reshape(-1, 4),
            windows,
            jnp.repeat(jnp.arange(b), q),
        )
        outputs = by_chunks(
            lambda crops: head(net.apply({"params": params, **state}, crops)),
            views,
            found.valid.ravel(),
            chunk=chunk,
            crop=cut,
        )
        return jax.tree.map(lambda x: x.reshape(b, q, *x.shape[1:]), outputs)

    def loss(params, state, batch: Batch, key):
        images, objects = batch.images, batch.objects
        draw, drop = jax.random.split(key)
        found = jax.vmap(candidates)(_given(batch.proposals), objects)
        labels, usable = jax.vmap(
            functools.partial(
                judge, num_classes=num_classes, positive=positive, negative=negative
            )
        )(found, objects)
        usable &= batch.valid[:, None]
        counts = (num_positives, num_background)
        places, chosen = sample(draw, labels, usable, counts, num_classes)
        views = stacked(
            normalize(images, pixels),
            found.boxes.reshape(-1, 4)[places],
            whole(images),
            places // labels.shape[1],
        )
        outputs, updated = net.apply(
            {"params": params, **state},
            cut(*views),
            train=True,
            mutable=[*state],
            rngs={"dropout": drop},
        )
        label = labels.ravel()[places]
        each = losses.softmax_cross_entropy(outputs.logits, label)
        part = losses.masked_mean(each, chosen)
        positives = jnp.sum(chosen & (label < num_classes))
        return part, (updated, {"class": part, "positives": positives})

    def predict(params, state, images, windows=None, proposals=None):
        found = _given(proposals)
        fitted = jnp.any(params["svm"]["kernel"] != 0)

        def head(outputs):
            margins = outputs.pooled @ params["svm"]["kernel"] + params["svm"]["bias"]
            probs = jax.nn.softmax(outputs.logits)[:, :-1]
            deltas = jnp.einsum(
                "kg,cgd->kcd", outputs.spatial, params["ridge"]["kernel"]
            )
            deltas = deltas + params["ridge"]["bias"]
            return jnp.where(fitted, jax.nn.sigmoid(margins), probs), deltas

        scores, deltas = seen_by_net(params, state, images, windows, found, head)
        move = jax.vmap(
            jax.vmap(boxes.decode_rcnn, in_axes=(1, None), out_axes=1), in_axes=(0, 0)
        )
        return jax.vmap(
            functools.partial(
                detect,
                score_threshold=score_threshold,
                nms_threshold=nms_threshold,
                top_k=top_k,
                max_detections=max_detections,
            )
        )(
            scores,
            move(deltas, found.boxes),
            found.valid,
            whole(images) if windows is None else windows,
        )

    @jax.jit
    def extract(params, state, batch: Batch):
        found = jax.vmap(candidates)(_given(batch.proposals), batch.objects)
        known = jax.vmap(functools.partial(seen, num_classes=num_classes))(
            found, batch.objects
        )
        pooled, spatial = seen_by_net(
            params, state, batch.images, None, found, lambda o: (o.pooled, o.spatial)
        )
        return known, pooled, spatial

    def finish(params, state, batches: Iterable[Batch]):
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            examples = gathered(
                functools.partial(extract, params, state),
                batches,
                (first, second),
                ridge_near,
            )
            solved = solve(
                examples,
                num_classes=num_classes,
                negative=svm_negative,
                penalty=ridge_penalty,
                cost=svm_cost,
            )
        return {**params, **jax.tree.map(jnp.asarray, solved)}

    return Model(init, loss, predict, net, finish, needs_proposals=True)


def _given(proposals: Proposals | None) -> Proposals:
    """The proposals; raises UserError where there are none."""
    if proposals is None:
        raise UserError(
            "R-CNN classifies boxes that something else proposes, and none are given; "
            "make the data set with prepare.proposals={'method': 'selective_search'}"
        )
    return proposals
