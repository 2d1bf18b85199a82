"""Goldens of our own code: tiny models, so that a change of a number is noticed.

They say nothing of parity. Their files have the form of the others, name "detjax" as
their source, and stand for what the same code computed when they were written.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from detjax import parity
from detjax.errors import UserError
from detjax.files import write_text
from detjax.parity import goldens
from detjax.parity.goldens import Golden
from detjax.weights import convert


def rewrite(path: str | pathlib.Path) -> None:
    """Computes the answers of the golden at `path` again; its recipe stays.

    Raises UserError for a golden that is not our own.
    """
    path = pathlib.Path(path)
    facts = json.loads(path.read_text())
    if facts.get("source") != parity.OWN:
        raise UserError(
            f"{path} holds what {facts.get('source')} computed; only goldens with "
            f'"source": "{parity.OWN}" are written'
        )
    source = parity.source(facts)
    params, state = (
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), part)
        for part in source.shapes(facts)
    )
    named = convert.export(params, state, source=source.SOURCE)
    facts["state_dict"] = [[name, [*value.shape]] for name, value in named.items()]
    golden = Golden(path.stem, facts, goldens.draw_weights(facts))
    write_text(path, dumps({**facts, **source.answers(golden)}))


def dumps(facts: dict[str, Any]) -> str:
    """JSON with a line for each entry of the two upper levels, in short numbers."""
    lines = []
    for name, value in facts.items():
        text = json.dumps(_short(value))
        if isinstance(value, dict):
            rows = (
                f"{json.dumps(k)}: {json.dumps(_short(v))}" for k, v in value.items()
            )
            text = "{\n  " + ",\n  ".join(rows) + "\n }"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _short(value: Any) -> Any:
    """`value` with floats of eight digits, a float32's worth."""
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value
