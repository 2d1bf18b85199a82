"""torchvision's classifiers: the logits of our backbones, by goldens of its own."""

from typing import Any

import jax
import numpy as np

from detjax import backbones
from detjax.parity import goldens
from detjax.parity.certificate import Certificate, size
from detjax.parity.goldens import Golden, summary, summary_error
from detjax.weights import convert

# Backbones have torchvision's names.
MODELS = {name: name for name in backbones.FAMILIES}
ORIGIN = SOURCE = "torchvision"


def certify(golden: Golden) -> Certificate:
    """`golden` against our backbone's logits.

    Raises ValueError where names or shapes do not fit.
    """
    facts = golden.facts
    logits, parameters = _logits(golden)
    return Certificate(
        golden.name,
        parameters,
        facts["parameters"],
        {"logits": summary_error(np.asarray(logits), facts["outputs"]["logits"])},
    )


def answers(golden: Golden) -> dict[str, Any]:
    """What a golden of this source holds, by our own code."""
    logits, parameters = _logits(golden)
    return {
        "parameters": parameters,
        "outputs": {"logits": summary(np.asarray(logits))},
    }


def shapes(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Shapes of the parameters and of the state of a golden's model."""
    made = dict(jax.eval_shape(_net(facts).init, jax.random.key(0), _images(facts)))
    return made.pop("params"), made


def _net(facts):
    settings = {"num_classes": 1000, **goldens.settings(facts)}
    if "outputs" in facts:
        settings["num_classes"] = facts["outputs"]["logits"]["shape"][-1]
    return backbones.make(MODELS[facts["model"]], **settings)


def _images(facts) -> np.ndarray:
    drawn = goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"])
    return drawn * 4 - 2


def _logits(golden: Golden) -> tuple[jax.Array, int]:
    facts = golden.facts
    params, state, _ = convert.load(golden.state_dict, *shapes(facts), source=SOURCE)
    logits = jax.jit(_net(facts).apply)({"params": params, **state}, _images(facts))
    return logits, size(params)
