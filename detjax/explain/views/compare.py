"""The view `compare`: methods of attribution beside each other, over a data set."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import files
from detjax.errors import UserError
from detjax.explain import splits
from detjax.explain.measures import comparison, randomised
from detjax.explain.methods import METHODS
from detjax.plots import style
from detjax.predict import TrainedModel
from detjax.settings import Count, Fraction, Whole
from detjax.types import Located, Scores

# Measures in the order of the table, with what is good.
MEASURES = {
    "insertion": "high",
    "deletion": "low",
    "pointing": "high",
    "inside": "high",
    "cascading": "near 0",
    "independent": "near 0",
}


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    methods: tuple[str, ...] = (),
    split: str = "val",
    limit: Whole = 32,
    layers: Count = 4,
    steps: Count = 24,
    blur: Fraction = 0.125,
    seed: int = 0,
) -> list[Path]:
    """A table of methods by measures, printed, as CSV and JSON, and as curves.

    methods: names of `explain.methods.METHODS`; all if none is given.
    split: of the run's data set; its pictures are used, and `images` are not.
    limit: of pictures; 0 takes all of the split.
    layers: that are randomised, spread over the network from the last to the first.
    steps: parts of the pixels in insertion and deletion.
    blur: deviation of the blur that insertion begins with, as a part of the input's
        height; what it does not hide has nothing to insert.
    seed: of the randomised weights.

    Of each picture the class that the network says is explained. Raises UserError for
    a model that does not tell an image's class, and for a method that is not known.
    """
    chosen = {name: _method(name) for name in methods or METHODS}
    model, params, state = trained.model, trained.params, trained.state
    batches = splits.opened(trained, split, limit)
    [sample] = splits.first(batches)
    batches.close()  # type: ignore[attr-defined]
    names = randomised.weighted_layers(model.predict, params, state, sample.inputs)
    names = [names[i] for i in sorted({*_spread(len(names), layers)})]
    shape = jax.ShapeDtypeStruct(sample.inputs.images[:1].shape, np.uint8)
    drawn = np.zeros(shape.shape, shape.dtype)
    fresh = jax.jit(model.init)(jax.random.key(seed), drawn)[0]
    said = jax.jit(lambda p, s, x: _known(model.predict(p, s, x)).scores.argmax(-1))

    def given() -> Any:
        for shown in splits.opened(trained, split, limit):
            found = np.asarray(said(params, state, shown.inputs))
            # What is true says where the class is, not where another would be.
            labels = shown.labels if shown.truth is not None else found
            yield shown.inputs, np.where(shown.labels >= 0, labels, -1), shown.truth

    explained = comparison.Explained(
        lambda answers, labels: _at(answers, labels, True),
        lambda answers, labels: _at(answers, labels, False),
    )
    found = comparison.compared(
        model.predict,
        params,
        fresh,
        state,
        given(),
        chosen,
        explained,
        names,
        steps,
        sigma=blur * drawn.shape[1],
        margin=round(15 * drawn.shape[1] / 224),
    )
    return written(found, names, out)


def written(found: comparison.Compared, names: Sequence[str], out: Path) -> list[Path]:
    """Prints the table, and writes it and the curves to the folder `out`."""
    columns = [name for name in MEASURES if name in next(iter(found.table.values()))]
    lines = [["method", *columns]]
    lines += [
        [name, *(f"{row[column]:.4f}" for column in columns)]
        for name, row in found.table.items()
    ]
    good = ["good is", *(MEASURES[column] for column in columns)]
    width = max(len(line[0]) for line in lines)
    print(f"{found.images} images; randomised, from the last: {', '.join(names)}")
    for line in [lines[0], good, *lines[1:]]:
        print(line[0].ljust(width), *(cell.rjust(11) for cell in line[1:]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    paths = [out / f"compare.{ending}" for ending in ("csv", "json", "png")]
    files.write_text(paths[0], text.getvalue())
    held = {
        "images": found.images,
        "layers": [*names],
        "table": found.table,
        "curves": {
            name: {key: np.asarray(x).tolist() for key, x in each._asdict().items()}
            for name, each in found.curves.items()
        },
    }
    files.write_text(paths[1], json.dumps(held, indent=1) + "\n")
    style.save(paths[2], drawn_curves(found))
    return paths


def drawn_curves(found: comparison.Compared) -> Any:
    """Insertion and deletion by method, with their areas."""
    figure = style.figure(10.5, 4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, kind in zip(panels, ("insertion", "deletion"), strict=True):
        for i, (name, row) in enumerate(found.table.items()):
            values = getattr(found.curves[name], kind)
            x = np.linspace(0, 1, len(values))
            panel.plot(x, values, label=f"{name} {row[kind]:.3f}", **style.line(i))
        what = "shown" if kind == "insertion" else "gone"
        panel.set(
            title=f"{kind}: the area", xlabel=f"part of the pixels that is {what}"
        )
        panel.legend(fontsize=7)
    panels[0].set(ylabel="probability of the class")
    return figure


def _method(name: str) -> Any:
    if name not in METHODS:
        raise UserError(
            f"no method is called {name!r}; choose some of {', '.join(METHODS)}"
        )
    return METHODS[name]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, the first and the last among them."""
    return [round(x) for x in np.linspace(0, count - 1, min(count, most))]


def _known(answers: Any) -> Scores | Located:
    if not isinstance(answers, Scores | Located):
        raise UserError(
            "the model does not tell the class of an image, which methods are compared "
            "on; take a run of a classifier, or of one that localises"
        )
    return answers


def _at(answers: Any, labels: Any, raw: bool) -> Any:
    """The logit, or the probability, of the class [b] of each image, [b 1]."""
    answers = _known(answers)
    of = answers.logits if raw and answers.logits is not None else answers.scores
    return jnp.take_along_axis(of, labels[:, None], axis=1)
