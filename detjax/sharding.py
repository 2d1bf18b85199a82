"""The mesh, and the only file that names its axes.

    data    splits batches by image, and with params="fsdp" the parameters too
    space splits images by height, if they are too large for one device

Losses are sums over the global batch under jit, so XLA inserts the reductions, the
gathers of parameters and the halo exchanges; no other file depends on the mesh.
"""

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from flax import linen
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from detjax.errors import UserError
from detjax.nn import conv, darknet, linear_map, upsample
from detjax.nn.batch import splitting
from detjax.settings import Count
from detjax.types import Batch, Inputs

DATA, SPACE = "data", "space"
Kept = Literal["replicated", "fsdp"]  # the layout of parameters
# What 'fsdp' splits: candidate axes of an array by its dotted name, of which the first
# divisible by the devices is split; the first matching pattern decides. Optimizer state
# has its parameter's name, so it is split alike.
RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"(^|\.)kernel$", (-1, -2)),  # output channels, else input channels
    (r"", ()),  # scales, biases, statistics and counters are small
)
# Minimum rows per device of a convolved map; smaller maps are gathered first. (XLA's
# gradients of a strided convolution are wrong from one row a device on.)
MIN_ROWS = 4
CONVOLUTIONS = (
    conv.Conv,
    darknet.Convolution,
    linear_map.LinearMap,
    linen.Conv,
    linen.ConvTranspose,
    upsample.ConvTranspose,
)


class Layout(NamedTuple):
    """A mesh, and the layout of parameters on it."""

    mesh: Mesh
    params: str = "replicated"

    @property
    def shares(self) -> int:
        """The number of shards of a global batch."""
        return self.mesh.shape[DATA]

    @property
    def local_shares(self) -> int:
        """This process's number of them."""
        return len(self.mesh.local_devices) // self.mesh.shape[SPACE]

    def replicated(self) -> NamedSharding:
        """The replicated sharding."""
        return NamedSharding(self.mesh, PartitionSpec())

    def by_image(self) -> NamedSharding:
        """The sharding of arrays whose leading axis counts images."""
        return NamedSharding(self.mesh, PartitionSpec(DATA))

    def of(self, tree: Any) -> Any:
        """The sharding of every array of a `TrainState`, or of weights."""
        return jax.tree_util.tree_map_with_path(
            lambda path, x: NamedSharding(self.mesh, self._spec(path, x.shape)), tree
        )

    def keep(self, tree: Any) -> Any:
        """`tree` with the shardings of `of`; every process passes the same arrays."""
        if jax.process_count() > 1:
            # Arrays on a device of one process cannot be copied to others' directly.
            tree = jax.tree.map(_off_device, tree)
        return jax.device_put(tree, self.of(tree))

    def put(self, batch: Batch) -> Batch:
        """This process's `batch` on its devices, as part of a global array.

        Raises UserError if it does not divide.
        """
        images = self.by_image()
        targets = jax.tree.map(lambda _: images, batch)
        inputs = self._split(batch.inputs)
        return self._join(batch, dataclasses.replace(targets, inputs=inputs))

    def put_inputs(self, inputs: Inputs) -> Inputs:
        """This process's `inputs` on its devices; see `put`."""
        return self._join(inputs, self._split(inputs))

    def _split(self, inputs: Inputs) -> Inputs:
        """The shardings of `inputs`: images by rows too. UserError if they do not."""
        space, height = self.mesh.shape[SPACE], inputs.images.shape[1]
        if height % space:
            raise UserError(
                f"images {height} pixels high do not divide among sharding.space="
                f"{space} devices; choose a data.size that does"
            )
        images = self.by_image()
        targets = jax.tree.map(lambda _: images, inputs)
        rows = NamedSharding(self.mesh, PartitionSpec(DATA, SPACE))
        return dataclasses.replace(targets, images=rows)

    def gather(self, params: Any) -> Any:
        """`params` gathered on every device, inside a traced function.

        By default XLA may split a convolution by channels to avoid the gather, which
        communicates more.
        """
        if self.params == "replicated":
            return params
        return jax.lax.with_sharding_constraint(params, self.replicated())

    @contextlib.contextmanager
    def traced(self) -> Iterator[None]:
        """Context in which models are traced, for the batch to be split as it should.

        Convolutions split their maps' rows over `space`. What is done to each image by
        itself is done by the devices that have it, without a word to the others: loops
        in it would else ask all of them in every round whether to go on.
        """
        with contextlib.ExitStack() as held:
            if self.mesh.size > 1:
                held.enter_context(splitting(self._each_share))
            if self.mesh.shape[SPACE] > 1:
                held.enter_context(linen.intercept_methods(self._split_rows))
            yield

    def _each_share(
        self, function: Callable[..., Any], in_axes: Any
    ) -> Callable[..., Any]:
        """`function` of a batch, which every device calls with its images."""

        def call(*args, **keywords):
            axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
            split = self._among(_count((*axes, 0), (*args, keywords)))
            if split is None or _by_itself():
                return function(*args, **keywords)
            rows, whole = PartitionSpec(split), PartitionSpec()
            given = _mapped(lambda axis: whole if axis is None else rows, axes)
            mapped = jax.shard_map(
                lambda args, keywords: function(*args, **keywords),
                mesh=self.mesh,
                in_specs=(given, rows),
                out_specs=rows,
                # Else every initial value of a loop would have to say that it varies.
                check_vma=False,
            )
            return mapped(args, keywords)

        return call

    def _among(self, count: int) -> tuple[str, ...] | None:
        """The axes among which `count` images divide: the most devices, or none."""
        for axes in ((DATA, SPACE), (DATA,)):
            if count % math.prod(self.mesh.shape[axis] for axis in axes) == 0:
                return axes
        return None

    def _split_rows(self, call, args, kwargs, context):
        convolves = isinstance(context.module, CONVOLUTIONS)
        if convolves and context.method_name == "__call__":
            x, *rest = args
            return self._by_rows(call(self._by_rows(x), *rest, **kwargs))
        return call(*args, **kwargs)

    def _by_rows(self, x: jax.Array) -> jax.Array:
        """Maps [b h w c] split over `space` if they are high enough, else gathered."""
        if _by_itself():
            return x
        rows, space = x.shape[1], self.mesh.shape[SPACE]
        fits = rows % space == 0 and rows >= MIN_ROWS * space
        split = PartitionSpec(DATA, SPACE) if fits else PartitionSpec(DATA)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, split))

    def on_host(self, tree: Any) -> Any:
        """`tree` gathered on this process's host, whatever its sharding."""
        return jax.device_get(
            jax.jit(lambda x: x, out_shardings=self.replicated())(tree)
        )

    def local(self, tree: Any) -> Any:
        """This process's images of arrays that are `by_image`, on the host."""
        return self.fetched(tree)()

    def fetched(self, tree: Any) -> Callable[[], Any]:
        """A function that waits for what `local` returns, which is on its way."""
        arrays, structure = jax.tree.flatten(tree)
        shards = [_shards(x) for x in arrays]
        for shard in itertools.chain.from_iterable(shards):
            shard.copy_to_host_async()

        def wait() -> Any:
            rows = [[np.asarray(shard) for shard in parts] for parts in shards]
            whole = [x[0] if len(x) == 1 else np.concatenate(x) for x in rows]
            return jax.tree.unflatten(structure, whole)

        return wait

    def _join(self, tree: Any, targets: Any) -> Any:
        """The arrays of `tree`, of this process, on its devices: all in one call."""
        arrays = jax.tree.map(np.asarray, tree)
        for x in jax.tree.leaves(arrays):
            if len(x) % self.local_shares:
                raise UserError(
                    f"a batch of {len(x)} images does not divide among "
                    f"{self.local_shares} devices; set data.batch_size to a multiple "
                    f"of {self.shares}"
                )
        if jax.process_count() == 1:
            return jax.device_put(arrays, targets)
        return jax.tree.map(jax.make_array_from_process_local_data, targets, arrays)

    def _spec(self, path: Any, shape: tuple[int, ...]) -> PartitionSpec:
        if self.params == "replicated":
            return PartitionSpec()
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        axes = next(axes for pattern, axes in RULES if re.search(pattern, name))
        for axis in axes:
            if shape[axis] % self.shares == 0:
                split: list[str | None] = [None] * len(shape)
                split[axis] = DATA
                return PartitionSpec(*split)
        return PartitionSpec()


def make(
    *,
    params: Kept = "replicated",
    space: Count = 1,
    devices: list[jax.Device] | None = None,
) -> Layout:
    """A layout over `devices`, all of all processes by default.

    params   "replicated", or "fsdp": each device keeps a shard of every large array
    space    devices that share an image, each some of its rows

    Raises UserError if `params` is unknown or the devices do not divide.
    """
    if params not in get_args(Kept):
        raise UserError(f"sharding.params={params!r} is not one of {get_args(Kept)}")
    devices = jax.devices() if devices is None else devices
    local = sum(d.process_index == jax.process_index() for d in devices)
    if space < 1 or local % space:
        raise UserError(
            f"sharding.space={space} does not divide the {local} devices of a process"
        )
    mesh = jax.make_mesh(
        (len(devices) // space, space),
        (DATA, SPACE),
        axis_types=(AxisType.Auto,) * 2,
        devices=devices,
    )
    return Layout(mesh, params)


def nearest(*, params: Kept = "replicated", space: int = 1) -> Layout:
    """The layout of `make`, with `space` reduced to what the devices here allow.

    For weights that were trained on others.
    """
    return make(params=params, space=math.gcd(space, jax.local_device_count()))


def _by_itself() -> bool:
    """Whether what is traced is a device's own share of a batch."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _count(axes: tuple[Any, ...], args: tuple[Any, ...]) -> int:
    """The images of the arguments whose axis is 0."""
    found: list[Any] = []
    _mapped(
        lambda axis, part: (
            None if axis is None else found.extend(jax.tree.leaves(part))
        ),
        axes,
        args,
    )
    return found[0].shape[0]


def _mapped(function: Callable[..., Any], axes: Any, *rest: Any) -> Any:
    """`jax.tree.map` over `in_axes` of `jax.vmap`, None included."""
    return jax.tree.map(function, axes, *rest, is_leaf=lambda axis: axis is None)


def _off_device(x: Any) -> Any:
    alone = isinstance(x, jax.Array) and x.is_fully_addressable
    return np.asarray(x) if alone else x


def _shards(x: jax.Array) -> list[jax.Array]:
    """This process's parts of an array, by their rows."""
    # Devices that share an image hold the same rows of its outputs.
    parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return [parts[start] for start in sorted(parts)]
