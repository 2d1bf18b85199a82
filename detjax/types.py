"""The shared data structures.

Shape legend, used in all signatures:

    b        images in a batch
    h, w     height and width of the network's input, in pixels
    n        objects or detections of one image, padded to a fixed number
    p        priors (anchors) of one image
    c        classes, without background
    mh, mw   height and width of a mask grid that spans the whole network input
    r        height and width of a mask grid that spans a detection's box
    oh, ow   height and width of a coarser map that spans the whole network input
    k        keypoints of one object

Boxes are xyxy float32 pixels of the network's input. Labels are 0..c-1. Only `valid`
marks padding; padded values are finite and otherwise arbitrary.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import linen, struct

if TYPE_CHECKING:
    # Static types know no array that is numpy's on the host and a tracer under jit;
    # shapes and dtypes are checked where they are true, by jaxtyping in the tests.
    Array = Any
else:
    Array = jax.Array | np.ndarray
Params = Any
State = Any


@struct.dataclass
class Objects:
    """Annotated objects, padded to a fixed n; leading axes are free."""

    boxes: Array  # [n 4] float32
    labels: Array  # [n] int32
    valid: Array  # [n] bool: a real object, crowds included
    crowd: Array  # [n] bool: a region that all losses ignore
    masks: Array | None = None  # [n mh mw] uint8 in {0, 1}
    box_masks: Array | None = None  # [n r r] uint8: the same, on a grid in each box
    keypoints: Array | None = None  # [n k 3] float32: x, y, visibility 0/1/2
    # [n 5] float32, of boxes at an angle: see `ops.rotated`
    oriented: Array | None = None
    # [n 4] float32: the boxes of whole objects, what is hidden included
    amodal: Array | None = None


@struct.dataclass
class Detections:
    """Predicted objects by falling score, padded to n; leading axes are free."""

    boxes: Array  # [n 4] float32
    scores: Array  # [n] float32
    labels: Array  # [n] int32
    valid: Array  # [n] bool
    masks: Array | None = None  # [n mh mw] float32: foreground probability
    mask_scores: Array | None = None  # [n] float32, where a head rescores masks
    box_masks: Array | None = None  # [n r r] float32: the same, on a grid in each box
    keypoints: Array | None = None  # [n k 3] float32: x, y, score
    oriented: Array | None = None  # [n 5] float32: boxes at an angle
    amodal: Array | None = None  # [n 4] float32: boxes of whole objects
    # Whether box_masks are pasted with exact coordinates and not torchvision's
    # rounding.
    aligned: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Label:
    """The classes of images; leading axes are free.

    Weights are 1 for the classes of an image and 0 for the others; multi-label images
    have several. Soft labels lie between.
    """

    weights: Array  # [c] float32
    # [1] float32: what the image counts in a loss, where classes are weighted
    importance: Array | None = None


@struct.dataclass
class Scores:
    """Class probabilities of images; leading axes are free."""

    scores: Array  # [c] float32, between 0 and 1
    logits: Array | None = None  # [c] float32: what they are computed from


@struct.dataclass
class Located:
    """Class probabilities of images, and the box of the main object for each class."""

    scores: Array  # [c] float32
    boxes: Array  # [c 4] float32, pixels of the network's input
    logits: Array | None = None  # [c] float32: what the scores are computed from


@struct.dataclass
class LabelMap:
    """The classes of an image's pixels; leading axes are free."""

    labels: Array  # [h w] uint8, or uint16 where there are more than 256 classes
    valid: Array  # [h w] bool: the pixels that have a class, others are ignored
    # [c] float32: what a pixel of each class counts in a loss, where they are weighted
    weights: Array | None = None


@struct.dataclass
class LabelScores:
    """Scores of the classes of an image's pixels; leading axes are free.

    They are stored as coarsely as the network computes them: `ops.resize.bilinear` to
    `size`, with or without aligned `corners`, gives those of the input's pixels.
    """

    logits: Array  # [oh ow c] float32
    size: tuple[int, int] = struct.field(pytree_node=False)  # (h, w) of the input
    corners: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class ValueMap:
    """A number for each pixel of an image, such as its depth; leading axes are free."""

    values: Array  # [h w] float32, finite
    valid: Array | None = None  # [h w] bool: the pixels that are known, all if None


@struct.dataclass
class Proposals:
    """Boxes that may hold an object, padded to a fixed p; leading axes are free."""

    boxes: Array  # [p 4] float32
    valid: Array  # [p] bool


@struct.dataclass
class View:
    """The position of the images of a batch in the network's inputs."""

    affine: Array  # [b 2 3] float32: original pixel (x, y, 1) -> network pixel
    sizes: Array  # [b 2] int32: original height and width
    valid: Array  # [b] bool: False for images that only fill up a last batch


@struct.dataclass
class Inputs:
    """The inputs of a prediction.

    Images are uint8 RGB and are normalised on the device, or float32 for a model that
    was made for images which are normalised already. Without a `view` pictures fill
    their inputs.
    """

    images: Array  # [b h w 3]
    view: View | None = None
    proposals: Proposals | None = None  # leading axis b: of models that make none


@struct.dataclass
class Batch:
    """A batch for a train step or an evaluation."""

    inputs: Inputs  # with a view
    target: Any  # the task's own struct, leading axis b: `Objects`, `Label`
    index: Array  # [b] int32: the record's place in its split
    # [b] int32 each: what the task counts of the targets, such as objects that did not
    # fit into the padding; a run's log has their sums
    counts: dict[str, Array] = struct.field(default_factory=dict)
    # [b] int32: index of the unreadable record that this one replaces, else -1
    skipped: Array | None = None


class PriorLevel(NamedTuple):
    """The priors of one level of a pyramid: the same boxes in every cell of a grid."""

    boxes: np.ndarray  # [a 4] float64 about the origin, in pixels
    shape: tuple[int, int]  # rows and columns of the grid
    step: tuple[float, float]  # pixels between its cells, vertical and horizontal
    offset: float  # where in its cell a prior is centred, in cells


class Priors(NamedTuple):
    """The priors of a model for inputs of one size, and which objects find them."""

    levels: tuple[PriorLevel, ...]  # finest first
    positive: float  # the IoU from which a prior learns an object
    setting: str  # the name of that setting of the model: "match.positive"
    # (boxes [n 4], xyxy pixels of the input) -> settings of the model by dotted name
    # that make priors of the same number fit these objects
    fitted: Callable[[np.ndarray], dict[str, Any]]


class Spec(NamedTuple):
    """A model's task and inputs."""

    task: str  # the name of its task, a key of `tasks.TASKS`
    outputs: int  # classes that answers tell apart, without background
    needs: tuple[str, ...] = ()  # fields of `Inputs` beside images: "proposals"
    # The parts whose learning rates are set and that are frozen by name: a regular
    # expression each, over dotted parameter names.
    groups: Mapping[str, str] = {}


class Model(NamedTuple):
    """A network as three pure functions; see the shape legend above."""

    spec: Spec
    init: Callable[..., tuple[Params, State]]  # (key, images)
    loss: Callable[..., tuple[jax.Array, tuple[State, dict[str, jax.Array]]]]
    # loss: (params, state, batch, key) -> scalar, (state, metrics)
    predict: Callable[[Params, State, Inputs], Any]
    # predict: (params, state, inputs) -> the task's answer, leading axis b
    net: linen.Module
    # (params, state, batches) -> params, once after gradient descent, for parameters
    # with a solver of their own; batches have every training image once
    solve: Callable[..., Params] | None = None
    # (params, state) -> state, once after each update of the parameters
    updated: Callable[[Params, State], State] | None = None
    # (h, w) of the input -> its priors, of models that have some
    priors: Callable[[tuple[int, int]], Priors] | None = None


class Table(NamedTuple):
    """Numbers by class, for reading; NaN is a number that is not defined."""

    columns: tuple[str, ...]  # the first is that of the names
    rows: list[tuple[Any, ...]]  # a name and its numbers each, whole or not
    by: int  # the column that rows are sorted by


# (answers of a batch, **which) -> [b q] float32: q numbers of each image
Quantity = Callable[..., Array]


class Subject(NamedTuple):
    """What of the answers to a batch is explained, where methods are compared."""

    which: Any  # leading axis b: what the functions of an `Explained` take
    counts: Array  # [b] bool: the images that have a subject
    truth: Array | None  # [b h w] bool: where in the input it is, if that is known


class Explained(NamedTuple):
    """One thing of each image that is explained, and what measures it."""

    of: Callable[..., Subject]  # (batch, its answers, names of classes)
    # (answers, which) -> [b 1]: what maps are of, such as a logit
    score: Callable[[Any, Any], Array]
    # (answers, which) -> [b 1]: what goes with the pixels, between 0 and 1
    probability: Callable[[Any, Any], Array]


class Question(NamedTuple):
    """What a user wants explained of the answers to a picture."""

    quantity: str  # one of the task's
    part: int | None  # of it: a keypoint's number, a side of a box; None is the whole
    labels: tuple[int, ...]  # of these classes; none is what is answered
    classes: Sequence[str]  # names
    most: int  # detections at most
    min_score: float  # of these


class Asked(NamedTuple):
    """What of the answers to a picture is explained: q things, fixed once and for all.

    A picture that is changed has other answers, of which the same is asked: the class,
    the object or the region that was there before the change.
    """

    captions: list[str]  # of those that are something, the first of the q
    which: Any  # arrays, whose shapes do not depend on the picture
    # (answers, which) -> [1 q], 0 of what is nothing. Equal for equal questions
    quantity: Callable[[Any, Any], Array]
    boxes: np.ndarray | None = None  # [n 4] of the captions', in the network's input


class Task(NamedTuple):
    """A task: from the data set's files to the metric and the drawing.

    record    see `data.records.Record`; its `truth` is the task's own
    answer    of one image, as `shrink` lets it leave the device, without leading axis
    found     the answer in the pixels of the original picture, on the host
    """

    name: str
    target: type  # the struct of a batch's targets
    # On disk. Features by name, as tfds declares them; (schema) -> {name: feature}
    features: Callable[..., dict[str, Any]]
    encode: Callable[..., dict[str, Any]]  # (record, schema) -> {name: tf feature}
    decode: Callable[..., Any]  # ({name: tf feature}, (h, w)) -> truth
    # (truth, number of classes) -> what is wrong with it, None where nothing is
    fault: Callable[..., str | None]
    facts: Callable[..., Any]  # (truth) -> `data.summary.Facts`
    # (record) -> labels [n], boxes [n 4]: the parts of a picture that have a class, in
    # its pixels; the whole picture where its truth has no boxes
    regions: Callable[..., tuple[np.ndarray, np.ndarray]]
    # On the host: (info, **settings of the config's section data) -> an object with
    #   empty(count, size) -> target, counts: room for the images of a batch
    #   clear(target): makes the room of an image empty again
    #   read(record, outlines=False) -> the truth with its `boxes` [m 4], which crops
    #     keep, and what tells the boxes of rotated objects; Unreadable
    #   fill(target, seen, size) -> counts: the truths, each a `data.frames.Seen`
    #   evaluation() -> the same with no more than an evaluation reads
    targets: Callable[..., Any]
    # (sums of counts over some steps) -> {subject: sentence} for a run's log
    warnings: Callable[..., dict[str, str]]
    # On the device, jitted: (answers of a batch) -> what has to leave the device
    shrink: Callable[[Any], Any]
    # On the device, of a batch's answers to the same pictures seen otherwise:
    # (answers, (h, w) of the input, names of keypoints) -> as if it were mirrored
    mirror: Callable[..., Any]
    # (answers, (y, x) factors) -> as if the input were so many times as large
    rescale: Callable[..., Any]
    # (several answers, the IoU above which two detections are one) -> one
    merge: Callable[..., Any]
    # Back: (answer, affine, size, network_size, min_score) -> found
    restore: Callable[..., Any]
    confident: Callable[..., Any]  # (found, min_score) -> found: the rest left out
    # Evaluation: (records without images, info, image_ids, skip, **settings of the
    # section eval) -> an object with
    #   add(place, found), which adds to its
    #   parts: columns by name, numpy arrays [n ...]; those of several processes are put
    #     one after the other, and a process without a row may lack columns
    #   again() -> the same without parts, with what is read of the records
    #   result(parts of all processes) -> metrics by name
    #   names() -> the names of these, before anything is read
    #   files(parts) -> what is written beside eval.json, by file name: what JSON holds,
    #     or a function that returns an iterator over the entries of a list
    #   plots(parts) -> functions that make a matplotlib Figure, by file name
    #   table(parts) -> a `Table` of the classes
    meter: Callable[..., Any]
    # (found, image_id, category_ids) -> [dict]: entries of results.json
    entries: Callable[..., list[dict[str, Any]]]
    # Pictures: (record) -> found; (image, found, classes, ...) -> a drawing
    truth: Callable[..., Any]
    draw: Callable[..., np.ndarray]
    # The task whose data sets it reads, where that is another
    reads: str | None = None
    # The score below which predictions are left out, where none is given
    least_score: float = 0.3
    # (shapes of the answer to a tile, `ops.tiling.Tiling`) -> `ops.tiling.Stitched`:
    # how the answers to tiles of a picture become one; None where they cannot
    stitch: Callable[..., Any] | None = None
    # What of an answer can be explained, by name, the usual one first: functions of the
    # answers, as `Model.predict` returns them, that have a gradient
    quantities: Mapping[str, Quantity] = {}
    # (answers to a batch of one on the host, its inputs, question) -> `Asked`
    ask: Callable[[Any, Inputs, Question], Asked] | None = None
    # What methods of explanation are compared on; None where there is nothing
    explained: Explained | None = None
    # (found, classes) -> {ending: content}: files beside the drawing of a picture, of
    # the picture's name and one of `endings`
    files: Callable[..., dict[str, bytes]] | None = None
    endings: tuple[str, ...] = ()

    def __hash__(self) -> int:
        """Tasks are keys of caches, and a dict among their fields has no hash."""
        return hash(self.name)

    @property
    def stored(self) -> str:
        """The task that its data sets are made for."""
        return self.reads or self.name
