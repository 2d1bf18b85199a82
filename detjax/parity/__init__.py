"""Parity with the original implementations, certified by goldens.

One file a source of goldens, each with where they come from (`ORIGINS`), the originals
that it knows (`MODELS`), what certifies one of its goldens (`certify`), and how our own
code fills one in (`answers`, `shapes`). Nothing else in the package imports from here.
"""

import json
import pathlib
from types import ModuleType
from typing import Any

import jax

from detjax.parity import (
    attributions,
    cams,
    classifiers,
    cornernet,
    darknet,
    detectors,
    goldens,
    gscnn,
    one_stage,
    segmenters,
    segmenters_vgg,
    yolact,
)
from detjax.parity.certificate import Certificate

SOURCES = (
    classifiers,
    yolact,
    detectors,
    one_stage,
    cornernet,
    segmenters,
    segmenters_vgg,
    gscnn,
    darknet,
    attributions,
    cams,
)
# Whose goldens say only that our own numbers did not move; see `own`.
OWN = "detjax"


def source(facts: dict[str, Any]) -> ModuleType | None:
    """What certifies a golden; None where its model or its origin is not known."""
    origin, *_ = str(facts.get("source")).split()
    for each in SOURCES:
        if origin in (OWN, *each.ORIGINS) and facts.get("model") in each.MODELS:
            return each
    return None


def known(folder: str | pathlib.Path) -> dict[pathlib.Path, ModuleType]:
    """The goldens below `folder`, or the one that it is, that a source certifies."""
    folder, found = pathlib.Path(folder), {}
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*.json")):
        each = source(json.loads(path.read_text()))
        if each is not None:
            found[path] = each
    return found


def certify(path: str | pathlib.Path) -> Certificate:
    """The certificate by the golden at `path`, which must be `known`.

    In all of float32's precision, which accelerators do not take by themselves. Raises
    ValueError where names or shapes do not fit.
    """
    golden = goldens.read(path)
    with jax.default_matmul_precision("highest"):
        return source(golden.facts).certify(golden)
