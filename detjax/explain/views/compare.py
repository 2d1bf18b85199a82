"""The view `compare`: methods of attribution beside each other, over a data set."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from detjax import files
from detjax.errors import UserError
from detjax.explain import splits
from detjax.explain.measures import comparison, randomised
from detjax.explain.methods import METHODS
from detjax.plots import style
from detjax.predict import TrainedModel
from detjax.settings import Count, Fraction, Whole
from detjax.types import Explained, Inputs, Subject

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
    batch_size: Count | None = None,
    seed: int = 0,
) -> list[Path]:
    """A table of methods by measures, printed, as CSV and JSON, and as curves.

    methods: names of `explain.methods.METHODS`; all if none is given.
    split: of the run's data set; its pictures are used, and `images` are not.
    limit: of pictures; 0 takes all of the split.
    layers: that are randomised, spread over the network from the last to the first;
        in the cascade with all that come after them.
    steps: parts of the pixels in insertion and deletion.
    blur: deviation of the blur that insertion begins with, as a part of the input's
        height; what it does not hide has nothing to insert.
    batch_size: pictures at once; the run's if None. A method holds what their
        gradients need.
    seed: of the randomised weights.

    Of each picture the class that the network says is explained, of detectors the best
    detection of an object, of segmenters the region of the class that wins most pixels.
    Raises UserError for a method that is not known, and a model of another task.
    """
    chosen = {name: _method(name) for name in methods or METHODS}
    model, params, state = trained.model, trained.params, trained.state
    explained = trained.task.explained
    if explained is None:
        raise UserError(
            f"methods cannot be compared on models of the task {trained.task.name}: "
            "there is no class, detection or region to explain"
        )
    batches = splits.batches(trained, split, 1)
    sample = next(batches)
    batches.close()  # type: ignore[attr-defined]
    names = randomised.weighted_layers(model.predict, params, state, sample.inputs)
    places = randomised.spread(names, params, layers)
    shape = sample.inputs.images[:1].shape
    fresh = jax.jit(model.init)(jax.random.key(seed), np.zeros(shape, np.uint8))
    with tqdm(total=limit or None, desc="images", disable=None) as bar:
        found = comparison.compared(
            model.predict,
            params,
            state,
            fresh,
            _given(trained, explained, split, limit, batch_size),
            chosen,
            explained,
            names,
            places,
            steps,
            sigma=blur * shape[1],
            margin=round(15 * shape[1] / 224),
            progress=lambda count: bar.update(count - bar.n),
        )
    return written(found, [names[i] for i in places], out)


def _given(
    trained: TrainedModel,
    explained: Explained,
    split: str,
    limit: int,
    batch_size: int | None,
) -> Iterator[tuple[Inputs, Subject]]:
    """The pictures of a split, and what is explained of each."""
    answered = jax.jit(trained.model.predict)
    for batch in splits.batches(trained, split, limit, batch_size):
        answers = jax.device_get(answered(trained.params, trained.state, batch.inputs))
        subject = explained.of(batch, answers, trained.classes)
        real = np.asarray(batch.inputs.view.valid)  # type: ignore[union-attr]
        inputs = jax.tree.map(np.asarray, batch.inputs)
        yield inputs, subject._replace(counts=np.asarray(subject.counts) & real)


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
    panels[0].set(ylabel="what is explained")
    return figure


def _method(name: str) -> Any:
    if name not in METHODS:
        raise UserError(
            f"no method is called {name!r}; choose some of {', '.join(METHODS)}"
        )
    return METHODS[name]
