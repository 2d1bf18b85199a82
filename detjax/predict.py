"""Inference from a run's folder or its weights."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax import compilation, files, models, tasks, tiles, tta
from detjax.checkpoint import Checkpoints
from detjax.data import handed, images, sizing
from detjax.data import proposals as proposing
from detjax.errors import MissingFileError, UserError
from detjax.predictor import Given, Predictor, in_order, known, prepared
from detjax.types import Model, Task

# A model setting of early versions, replaced by data.min_size.
RETIRED = "min_size"
# The folder of a run's weights after its model's `solve`.
SOLVED = "solved"


class TrainedModel(NamedTuple):
    """A trained model with everything needed for inference."""

    config: dict[str, Any]  # settings by section, as config.json has them
    classes: list[str]
    category_ids: list[int]
    model: Model
    params: Any
    state: Any
    step: int
    keypoints: tuple[str, ...] = ()  # the names of the data set's

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        count = sum(x.size for x in jax.tree.leaves(self.params))
        return (
            f"TrainedModel({self.config['model']['name']}, step {self.step}, "
            f"{count:,} parameters, {len(self.classes)} classes: {names})"
        )

    def __call__(
        self,
        image: Any,
        min_score: float = 0.0,
        proposals: np.ndarray | None = None,
    ) -> Any:
        """The prediction for an image of any size, or a list of them for a list.

        A list goes to the devices in batches; see `Predictor` for their size. An image
        is an array [h w 3] RGB or [h w] grey, uint8, a PIL image, or a file's
        path, which is read upright. Returns the result of the task's `restore`, in
        pixels of the image. A model that needs proposals takes them as [p 4], xyxy
        pixels of the image; without them they are computed by the training data's
        method.

        Raises UserError for other arrays, and if that method is unknown.
        """
        if not isinstance(image, list | tuple):
            return self.predictor()(image, min_score, proposals)
        predict = self.predictor(batch_size=None)
        given = ((i, predict.prepare(x, proposals)) for i, x in enumerate(image))
        found = (
            (i, self.task.restore(*known(answer), min_score))
            for i, _, answer in predict.answers(given)
        )
        return list(in_order(found))

    def draw(self, image: Any, found: Any, **options: Any) -> np.ndarray:
        """A drawing [h w 3] uint8 of the prediction `found` for `image`.

        Images are those of `__call__`, `options` those of the task's `draw`.
        """
        return self.task.draw(as_rgb(image), found, self.classes, **options)

    @property
    def task(self) -> Task:
        """The task of the model."""
        return tasks.TASKS[self.model.spec.task]

    def predictor(
        self,
        batch_size: int | None = 1,
        whole: tiles.Whole | None = None,
        log: Callable[[str], Any] = str,
        **testing: Any,
    ) -> Predictor:
        """The function behind `__call__`, compiled once per input size.

        Create it once outside a loop. It has answers to many pictures too, `batch_size`
        at a time, see `Predictor`. `testing` are keywords of `tta.augmented`, in
        place of those of the run's section eval. With `whole` pictures are looked at in
        their own size, whole or in tiles, and not resized as the run has it; `log` is
        told where tiles have another side, see `tiles.fitted`.
        """
        given = tta.split_settings(self.config.get("eval") or {})[0] | testing
        model = tta.augmented(self.model, self.task, self.keypoints, **given)
        if whole is not None:
            asked = whole.tile
            whole = tiles.fitted(model, self.task, whole, self.params, self.state)
            if whole.tile != asked:
                log(
                    f"tiles have {whole.tile} pixels a side and not {asked}: the "
                    "network's maps of such tiles lie on one grid"
                )
            model = tiles.tiled(model, self.task, whole)
        declared = {
            k: v for k, v in self.config["data"].items() if k in sizing.KEYWORDS
        }
        method = self.proposal_method()
        limit: Any = self.config["data"].get("max_proposals")
        limit = limit or (method and method["limit"])

        # As evaluations of the run see images; earlier versions have no such key.
        reduce = bool(self.config["data"].get("reduced_decoding"))

        def prepare(image: Any, proposals: np.ndarray | None = None) -> Given:
            image = as_rgb(image)
            if "proposals" not in self.model.spec.needs:
                proposals = None
            elif proposals is None:
                proposals = self.propose(image)
            own = None if whole is None else whole.resize
            return prepared(image, proposals, limit, reduce, own, **declared)

        weights = self.params, self.state
        return Predictor(model.predict, self.task, *weights, prepare, batch_size)

    def proposal_method(self) -> dict[str, Any] | None:
        """The method of the training data's proposals, None if unknown."""
        made = self.config["data"].get("prepare") or {}
        return proposing.complete(made["proposals"]) if made.get("proposals") else None

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Proposals [p 4] of a new image [h w 3] RGB, by the training data's method.

        Raises UserError if that method is unknown.
        """
        method = self.proposal_method()
        if method is None:
            raise UserError(
                f"the model {self.config['model']['name']!r} needs proposals and its "
                "config does not say how to find them in new images; set "
                "data.prepare.proposals, or give the proposals of the image"
            )
        return proposing.finder(method)(np.ascontiguousarray(image[..., ::-1]))


def load(workdir: str | pathlib.Path, best: bool = False) -> TrainedModel:
    """The newest checkpoint of `workdir`, or the `best`, as a predictor.

    For a finished run these are the weights after its model's `solve`, if it has one;
    never for `best`. Raises MissingFileError if `workdir` holds no run, or no best one.
    """
    compilation.enable_cache()
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; is {workdir} a --workdir?")
    described = read_config(path)
    folder = "best" if best else "checkpoints"
    checkpoints = Checkpoints(workdir, folder=folder, read_only=True)
    newest = checkpoints.latest()
    # A run that continued after its `solve` has newer weights.
    if (
        not best
        and newest is not None
        and (path.parent / SOLVED / str(newest)).exists()
    ):
        checkpoints.close()
        checkpoints = Checkpoints(workdir, folder=SOLVED, read_only=True)
    step, params, state = checkpoints.restore_weights()
    checkpoints.close()
    with files.reading(path, "put back the one that the run wrote"):
        return assemble(described, params, state, step)


def assemble(
    described: dict[str, Any], params: Any, state: Any, step: int
) -> TrainedModel:
    """A predictor from the content of config.json and weights.

    Raises UserError if the number of classes is not the model's.
    """
    sections = dict(described)
    classes, category_ids = sections.pop("classes"), sections.pop("category_ids")
    sections.pop("made_from", None)
    keypoints = tuple(sections.pop("keypoints", ()))
    model = models.make(**sections["model"])
    for held in (classes, category_ids):
        if len(held) != model.spec.outputs:
            raise UserError(
                f"{len(held)} classes or category_ids are named, the model has "
                f"{model.spec.outputs}"
            )
    return TrainedModel(
        sections,
        list(classes),
        list(category_ids),
        model,
        params,
        state,
        step,
        keypoints,
    )


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The content of a run's config.json. Raises UserError if no run wrote it."""
    advice = "put back the one that the run wrote, or choose another --workdir"
    found = files.read_object(
        path, "model", "data", "classes", "category_ids", advice=advice
    )
    kinds = {"model": dict, "data": dict, "classes": list, "category_ids": list}
    for part, kind in kinds.items():
        if not isinstance(found[part], kind):
            raise UserError(f"{path} has {part}={found[part]!r}; {advice}")
    held = found["model"]
    held.pop(RETIRED, None)
    name = held.pop("name", None)
    if name not in models.MODELS:
        raise UserError(f"{path} names {name!r}, which is no model; {advice}")
    with files.reading(path, advice):
        found["model"] = {"name": name, **models.current(name, held)}
    return found


def as_rgb(image: Any) -> np.ndarray:
    """`image` as uint8 RGB [h w 3]; grey is repeated, an alpha channel dropped.

    It is an array, a PIL image of any mode, or the path of a file; see `read_image`.
    Raises UserError for anything but a uint8 image of at least one pixel.
    """
    if isinstance(image, str | pathlib.Path):
        return read_image(image)
    return handed.rgb(image)


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """A file as uint8 RGB [h w 3], upright: EXIF rotation is applied.

    Converted as in preparing data sets: see `data.pixels.rgb`. Raises UserError that
    names a file that is missing or not an image.
    """
    data = files.read_bytes(path)
    try:
        return images.read(data)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
