"""The view `attribute`: what the pixels of pictures add to an answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detjax import draw
from detjax.errors import UserError
from detjax.explain import pictures
from detjax.explain.methods import METHODS
from detjax.explain.views import asked
from detjax.predict import TrainedModel

VALUE = "value"  # of the program that computes what is explained
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
    quantity: what of the task's quantities is explained; the usual one if empty. Parts
        and units are written as in the view cam.

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
    ask = asked.Asker(trained, quantity, labels, most=len(labels) or 1)
    paths = []
    for path, stem in zip(images, pictures.stems(images), strict=True):
        image, inputs = pictures.given(trained, path)
        of = ask(inputs)
        if not of.captions:
            raise UserError(f"{path}: the model finds nothing there to explain")
        value = ask.run(VALUE, _value(ask, bool(against)), of, inputs)
        score = float(np.asarray(value)[0, 0])
        versus = f" - {against}" if against else ""
        image, shown = pictures.small(image, inputs)
        panels, captions = [image], [f"{of.captions[0]}{versus}: {score:.2f}"]
        for name in methods:
            build = _attributed(ask, name, bool(against))
            found = np.asarray(ask.run(name, build, of, inputs))[0, 0]
            found = asked.scaled(found)
            if found.min() < 0:
                panels.append(pictures.overlay(image, found, shown, signed=True))
                captions.append(f"{name}, for and against")
            panels.append(pictures.overlay(image, np.abs(found), shown))
            captions.append(f"{name}, magnitude")
        columns = 4 if len(panels) > 6 else 3
        paths.append(out / f"attribute-{stem}.png")
        draw.save(paths[-1], pictures.grid(panels, captions, columns))
    return paths


def _attributed(ask: asked.Asker, name: str, against: bool) -> asked.Build:
    """The maps [1 1 h w] of a method."""

    def build(quantity, params, state, inputs, which):
        of = asked.difference(quantity, against)
        call = METHODS[name](ask.predict, lambda answers: of(answers, which))
        return call(params, state, inputs)

    return build


def _value(ask: asked.Asker, against: bool) -> asked.Build:
    """What is explained, [1 1]."""

    def build(quantity, params, state, inputs, which):
        answers = ask.predict(params, state, inputs)
        return asked.difference(quantity, against)(answers, which)

    return build
