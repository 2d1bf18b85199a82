"""WordTree: classes that have classes above them.

    c     nodes of the tree, the classes
    g     groups: nodes of one parent, which exclude each other

Redmon and Farhadi 2017 (YOLO9000), section 4; darknet's src/tree.c.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from detjax.errors import UserError
from detjax.types import Array


@dataclasses.dataclass(frozen=True)
class Tree:
    """A tree of classes: the parent of each, -1 of a root; it comes after its parent.

    Nodes of one group lie side by side.
    """

    parents: tuple[int, ...]
    names: tuple[str, ...] = ()

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """The group [c] of each node, rising."""
        parents = np.array(self.parents)
        return np.cumsum(np.diff(parents, prepend=parents[:1]) != 0)

    @functools.cached_property
    def depth(self) -> int:
        """The nodes on the longest way to a root."""
        depths = np.zeros(len(self.parents), int)
        for node, parent in enumerate(self.parents):
            depths[node] = 1 + (depths[parent] if parent >= 0 else 0)
        return int(depths.max(initial=0))

    @functools.cached_property
    def ways(self) -> np.ndarray:
        """Each node and those above it, [c depth], padded with c."""
        count = len(self.parents)
        ways = np.full((count, self.depth), count, np.int32)
        for node, parent in enumerate(self.parents):
            ways[node, 0] = node
            if parent >= 0:
                ways[node, 1:] = ways[parent, :-1]
        return ways

    @functools.cached_property
    def below(self) -> np.ndarray:
        """The group [c] of the nodes below each node; -1 of a leaf."""
        below = np.full(len(self.parents), -1)
        for node, parent in reversed(list(enumerate(self.parents))):
            if parent >= 0:
                below[parent] = self.groups[node]
        return below

    def top(self, logits: Array, threshold: float) -> Array:
        """The node [p] that is found, of logits [p c]: as far down as is sure.

        From the root on the best node of the group, as long as the product of what has
        been passed and of it is above `threshold`; else the node above. As darknet's,
        it multiplies probabilities that are products from the root already, so that
        higher nodes count more than once.
        """
        count = int(self.groups[-1]) + 1
        ids = jnp.asarray(self.groups)
        rows = self.absolute(logits).T
        best = jax.ops.segment_max(rows, ids, count, indices_are_sorted=True)
        node = jnp.where(rows == best[ids], jnp.arange(len(ids))[:, None], len(ids))
        node = jax.ops.segment_min(node, ids, count, indices_are_sorted=True)
        first = np.searchsorted(self.groups, np.arange(count))
        above = jnp.asarray(np.array(self.parents)[first])
        place = jnp.arange(rows.shape[1])

        def step(_, state):
            group, passed, found, done = state
            now, value = node[group, place], best[group, place]
            sure = passed * value > threshold
            stopped = jnp.where(group == 0, now, above[group])
            found = jnp.where(done, found, jnp.where(sure, now, stopped))
            below = jnp.asarray(self.below)[now]
            done |= ~sure | (below < 0)
            group = jnp.where(done, group, below)
            return group, jnp.where(sure, passed * value, passed), found, done

        group = jnp.zeros(rows.shape[1], jnp.int32)
        start = (group, jnp.ones(group.shape), group, jnp.zeros(group.shape, bool))
        return jax.lax.fori_loop(0, self.depth, step, start)[2]

    def log_softmax(self, logits: Array) -> Array:
        """Logarithms [... c] of the probability of each node if its parent is true."""
        count = int(self.groups[-1]) + 1
        ids = jnp.asarray(self.groups)
        rows = logits.reshape(-1, logits.shape[-1]).T.astype(jnp.float32)
        most = jax.ops.segment_max(rows, ids, count, indices_are_sorted=True)
        apart = rows - jax.lax.stop_gradient(most)[ids]
        total = jax.ops.segment_sum(jnp.exp(apart), ids, count, indices_are_sorted=True)
        return (apart - jnp.log(total)[ids]).T.reshape(logits.shape)

    def log_absolute(self, logits: Array) -> Array:
        """Logarithms [... c] of the nodes' probabilities: sums of those on the way."""
        logs = self.log_softmax(logits)
        padded = jnp.pad(logs, [(0, 0)] * (logs.ndim - 1) + [(0, 1)])
        return sum(padded[..., self.ways[:, i]] for i in range(self.depth))

    def absolute(self, logits: Array) -> Array:
        """Probabilities [... c] of the nodes: the product of those on the way up."""
        return jnp.exp(self.log_absolute(logits))

    def loss(self, logits: Array, labels: Array, place: Array, valid: Array) -> Array:
        """Cross entropy [n] of objects, with the logits [n c] of their places [n].

        It is that of every group on the label's way to a root, but for those that a
        later object of the same place passes too.
        """
        ways = jnp.asarray(self.ways)[labels]
        logs = jnp.pad(self.log_softmax(logits), ((0, 0), (0, 1)))
        each = -jnp.take_along_axis(logs, ways, axis=-1)
        # A group of its own for the end of short ways.
        groups = jnp.asarray(np.append(self.groups, -1))[ways]
        after = jnp.arange(len(labels))[:, None] < jnp.arange(len(labels))
        rival = after & (place[:, None] == place) & valid
        same = (groups[:, None, :, None] == groups[None, :, None, :]).any(axis=-1)
        passed = (same & rival[..., None]).any(axis=1)
        return jnp.where(valid, jnp.where(passed, 0.0, each).sum(axis=-1), 0.0)


def read(given: str | pathlib.Path) -> Tree:
    """The tree of a file with a name and the number of its parent a line.

    Or of the text of one, of several lines. Raises UserError for others, and where a
    parent does not come before its node.
    """
    file = "the tree" if "\n" in str(given) else str(given)
    return parse(text(given), file)


def text(given: str | pathlib.Path) -> str:
    """The text of a tree's file, or `given` where it is one, of several lines.

    Raises UserError where it cannot be read.
    """
    if "\n" in str(given):
        return str(given)
    try:
        return pathlib.Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{given} cannot be read as a tree ({error})") from None


def parse(text: str, file: str) -> Tree:
    """The tree that `text` describes; `file` is its name in messages."""
    names: list[str] = []
    parents: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, _, above = line.strip().rpartition(" ")
        known = name and above.lstrip("-").isdigit()
        if not known or int(above) >= len(names):
            raise UserError(
                f"{file}, line {number}: {line!r} is no name with the number of a line "
                "before it"
            )
        names.append(name)
        parents.append(max(int(above), -1))
    if not names:
        raise UserError(f"{file} is empty; it is no tree")
    return Tree(tuple(parents), tuple(names))
