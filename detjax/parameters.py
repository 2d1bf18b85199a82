"""Naming parameters: groups of a model, regular expressions, and "all but" those."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from detjax.errors import UserError

ALL, BUT, HEAD, BACKBONE = "all", "all but ", "head", "backbone"


def names(params: Any) -> Any:
    """The dotted name of every leaf, in a tree like `params`: 'fpn.p6.kernel'."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: ".".join(str(p.key) for p in path), params
    )


def matching(
    said: str | Iterable[str], params: Any, groups: Mapping[str, str] | None = None
) -> Any:
    """True for every leaf of `params` that `said` names; see `patterns`."""
    parts = patterns(said, groups or {}).values()
    return jax.tree.map(
        lambda name: any(re.search(part, name) for part in parts), names(params)
    )


def patterns(said: str | Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """A regular expression for each of `said`.

    Each is the name of a group, an expression, "all", or "all but" one of the first
    two. "head" is all but the backbone in a model without a group of that name.
    """
    parts = [said] if isinstance(said, str) else said
    return {part: _pattern(part, groups) for part in parts}


def _pattern(part: str, groups: Mapping[str, str]) -> str:
    if part in groups:
        return groups[part]
    if part == ALL:
        return ""
    if part.startswith(BUT):
        return _but(_pattern(part.removeprefix(BUT), groups))
    if part == HEAD and BACKBONE in groups:
        return _but(groups[BACKBONE])
    return part


def _but(pattern: str) -> str:
    """An expression that matches where `pattern` matches nowhere."""
    return rf"^(?!.*?(?:{pattern}))"


def check_names(
    params: Any,
    groups: Mapping[str, str],
    *,
    no_decay: str | Iterable[str] | None = None,
    freeze: str | Iterable[str] | None = None,
    unfreeze: Iterable[tuple[int, str | Iterable[str]]] = (),
    rates: Mapping[str, float] | None = None,
    **_: Any,
) -> None:
    """Raises UserError if a setting of `optim.make` matches none of `params`.

    These are arrays or shapes, as `jax.eval_shape` of a model's init gives them. So do
    stages of `unfreeze` that set nothing free.
    """
    known = jax.tree.leaves(names(params))
    settings: dict[str, Any] = {"no_decay": no_decay, "freeze": freeze, "rates": rates}
    settings |= {f"unfreeze: {step}": said for step, said in unfreeze}
    for key, said in settings.items():
        for part in patterns(said or (), groups):
            # "All but" what does not exist is all, which nobody means.
            pattern = _pattern(part.removeprefix(BUT), groups)
            if not any(re.search(pattern, name) for name in known):
                raise UserError(
                    f"optimizer.{key}={said!r} names {part!r}, which matches no "
                    f"parameter; groups are {', '.join(groups) or 'none'}, parameters "
                    f"are called {known[0]!r} and so on"
                )
    frozen = {n for n, hit in _hits(known, freeze or (), groups).items() if hit}
    for step, said in unfreeze:
        freed = {n for n, hit in _hits(known, said, groups).items() if hit} & frozen
        if not freed:
            raise UserError(
                f"optimizer.unfreeze sets {said!r} free at step {step}, of which "
                "nothing is frozen by then; name it in optimizer.freeze, or leave the "
                "stage out"
            )
        frozen -= freed


def _hits(known: Iterable[str], said: Any, groups: Mapping[str, str]) -> dict:
    parts = patterns(said, groups).values()
    return {name: any(re.search(p, name) for p in parts) for name in known}
