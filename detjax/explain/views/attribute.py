"""The view `attribute`: what the pixels of pictures add to an answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from detjax import draw
from detjax.errors import UserError
from detjax.explain import pictures
from detjax.explain.methods import METHODS
from detjax.explain.views import asked
from detjax.predict import TrainedModel

USUAL = ("integrated_gradients", "smoothgrad", "guided_backprop", "occlusion")


def view(
    trained: TrainedModel,
    images: Sequence[Path],
    out: Path,
    *,
    methods: tuple[str, ...] = USUAL,
    label: str = "",
    against: str = "",
    quantity: str = "",
) -> list[Path]:
    """A sheet a picture: each method's magnitude over the picture, and the map by sign.

    methods: names of `explain.methods.METHODS`.
    label: the class that is explained; what the model answers if empty.
    against: a class whose score is subtracted: why `label`, and not this one?
    quantity: what of the task's quantities is explained; the usual one if empty.

    Red is for the answer and blue against it, of methods that tell these apart. Raises
    UserError for names that are not known.
    """
    if against and not label:
        raise UserError("against is set without label; give both classes")
    for name in methods:
        if name not in METHODS:
            raise UserError(
                f"no method is called {name!r}; choose some of {', '.join(METHODS)}"
            )
    labels = [x for x in (label, against) if x]
    of = asked.quantity(trained, quantity, labels)

    def measured(answers: Any) -> Any:
        found = of(answers)
        return found[:, :1] - found[:, 1:2] if against else found[:, :1]

    predict = trained.model.predict
    programs = {name: jax.jit(METHODS[name](predict, measured)) for name in methods}
    value = jax.jit(lambda *args: measured(predict(*args)))
    paths = []
    for path in images:
        image, inputs = pictures.given(trained, path)
        weights = trained.params, trained.state, jax.tree.map(jnp.asarray, inputs)
        score = float(np.asarray(value(*weights))[0, 0])
        said = label or _answer(trained, weights)
        versus = f" - {against}" if against else ""
        panels, captions = [image], [f"{said}{versus} {score:.2f}"]
        for name, call in programs.items():
            found = asked.scaled(np.asarray(call(*weights))[0, 0])
            if found.min() < 0:
                panels.append(pictures.overlay(image, found, inputs, signed=True))
                captions.append(f"{name}, for and against")
            panels.append(pictures.overlay(image, np.abs(found), inputs))
            captions.append(f"{name}, magnitude")
        columns = 4 if len(panels) > 6 else 3
        paths.append(out / f"attribute-{Path(path).stem}.png")
        draw.save(paths[-1], pictures.grid(panels, captions, columns))
    return paths


def _answer(trained: TrainedModel, weights: Any) -> str:
    """The name of the class that the model says, where it says one of an image."""
    answers = trained.model.predict(*weights)
    scores = getattr(answers, "scores", None)
    if scores is None or scores.shape[-1] != len(trained.classes):
        return "answer"
    return trained.classes[int(np.asarray(scores)[0].argmax())]
