"""``rows``: the rows of each process, as arrays that all devices share."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmle._types import Clusters, Data, Device, KeyPath, Loglik, Tree, ndarray
from jaxmle.distributed.fit import fit_shared
from jaxmle.distributed.peers import agreed, all_counts, lost_peers_named
from jaxmle.distributed.placement import Placement, placement_of
from jaxmle.distributed.shared import SharedRows
from jaxmle.fitting.options import Options
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Weights, check_weights_given
from jaxmle.likelihood.contract import data_length, fits_itself
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision, tracing

ROWS = "rows"  # the axis of the mesh of ``rows``


@dataclass(frozen=True, eq=False, repr=False)
class DistributedRows:
    """Rows spread over several devices, for ``fit(loglik, data=…)``; made by ``rows``.

    >>> import numpy as np, jaxmle as jm
    >>> jm.distributed.rows({"y": np.arange(10.0)}).rows
    10
    """

    shared: SharedRows
    numbers: tuple[int, ...]  # of rows of each process

    @property
    def rows(self) -> int:
        """The total number of rows of all processes."""
        return sum(self.numbers)

    @property
    def data(self) -> Data:
        """The data as global arrays (n, …), including rows of padding."""
        return self.shared.data

    def __repr__(self) -> str:
        devices = self.shared.placement.mesh.size
        return f"DistributedRows({self.rows:,} rows over {devices} device{'s' * (devices != 1)})"

    def given(self, weights: Weights | None, clusters: Clusters) -> tuple[Weights | None, Tree]:
        """The weights and clusters of these rows; raises if others are passed."""
        if weights is not None or clusters is not None:
            raise ValueError(
                "distributed rows already have their weights and clusters: give them "
                "when you make the rows, jaxmle.distributed.rows(…, weights=…, "
                "clusters=…)"
            )
        return self.shared.weights, self.shared.clusters

    def fit_with(self, loglik: Loglik, params0: Tree, options: Options) -> Fit:
        """``fit`` with its options as one record: what ``jaxmle.fit(model, data=rows)`` calls."""
        return fit_shared(self.shared, loglik, params0, options)


# ---------------------------------------------------------------- from local rows


def rows(
    data: Data, *, weights: Weights | None = None, clusters: Clusters = None
) -> DistributedRows:
    """The rows of this process and of all other processes, spread over all devices.

    Each process of ``jax.distributed`` calls it with its own rows, any number of them; a single
    process spreads its rows over its devices. Devices are padded to the same number of rows with
    copies that do not count: a fit of the result is the fit of all the rows.

    Args:
        data: a tree of arrays (n, …) of NumPy, or a frame of numbers.
        weights: ``frequency(w)`` or ``sampling(w)`` of these rows.
        clusters: one label for each of these rows, (n,), or a pair of label arrays; integers that
            mean the same in all processes.

    Returns:
        ``DistributedRows``, the ``data`` of ``fit``.

    Raises:
        TypeError, ValueError: in all processes, if a leaf in one of them is not numeric, holds NaN,
            or has a different number of rows; for weights without a meaning; for clusters that are
            not integers.

    >>> import numpy as np, jaxmle as jm
    >>> shared = jm.distributed.rows({"y": np.array([1.0, 3.0, 2.0, 6.0])})
    >>> fit = jm.fit(
    ...     jm.models.poisson(),
    ...     {"beta": np.zeros(1)},
    ...     jm.distributed.rows({"x": np.ones((4, 1)), "y": np.array([1.0, 3.0, 2.0, 6.0])}),
    ... )
    >>> fit.verdict.name, int(fit.n), round(float(np.exp(fit.params["beta"][0])), 6)
    ('CONVERGED', 4, 3.0)
    """
    with lost_peers_named(), precision(np.float64):
        local = agreed(lambda: _local(data, weights, clusters))
        numbers = all_counts(local.rows)
        placement = Placement(Mesh(np.array(_devices()), (ROWS,)), (ROWS,))
        of_a_device = max(
            -(-number // count)
            for number, count in zip(numbers, _devices_of_processes(), strict=True)
        )
        length = of_a_device * len(jax.local_devices())

        def shared(leaf: ndarray) -> jax.Array:
            padding = [(0, length - local.rows)] + [(0, 0)] * (leaf.ndim - 1)
            whole = np.pad(leaf, padding, mode="edge")
            return jax.make_array_from_process_local_data(placement.sharding, whole)

        present = jax.make_array_from_process_local_data(
            placement.sharding, np.arange(length) < local.rows
        )
        together = SharedRows(
            jax.tree.map(shared, local.data),
            placement,
            present,
            None
            if weights is None or local.weights is None
            else Weights(shared(local.weights), weights.kind),
            tuple(shared(labels) for labels in local.clusters) or None,
        )
        return DistributedRows(together, tuple(numbers))


# ---------------------------------------------------------------- from arrays as they are


def shared_rows(data: Tree, weights: Weights | None, clusters: Clusters) -> SharedRows | None:
    """The rows of a fit, if several devices share them; otherwise None. NumPy arrays next to shared
    arrays are shared in the same way.

    Raises:
        TypeError, ValueError: as ``placement_of``; for an array of one process beside arrays of
            all.
    """
    if isinstance(data, DistributedRows):
        data.given(weights, clusters)
        return data.shared
    if tracing() or fits_itself(data):
        return None
    placement = placement_of(data)
    if placement is None:
        return None
    if jax.process_count() > 1:
        _refuse_local((data, weights, clusters))
    length = data_length(data) or 0

    def shared(name: str, leaf: Tree) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == placement.sharding:
            return leaf
        if np.shape(leaf)[:1] != (length,):
            raise ValueError(f"{name} has shape {np.shape(leaf)}; the data have {length} rows")
        return jax.device_put(leaf, placement.sharding)

    def leaf_of(path: KeyPath, leaf: Tree) -> jax.Array:
        is_array = isinstance(leaf, jax.Array)
        return shared(
            "data" + jax.tree_util.keystr(path), leaf if is_array else host_data(leaf, np.float64)
        )

    with precision(np.float64):
        placed = jax.tree_util.tree_map_with_path(leaf_of, data)
        present = jax.device_put(np.ones(length, bool), placement.sharding)
        if weights is not None:
            check_weights_given(weights)
            weights = Weights(shared("weights", weights.values), weights.kind)
        if clusters is not None:
            clusters = tuple(shared("clusters", part) for part in _coded(clusters, length))
        return SharedRows(placed, placement, present, weights, clusters)


def _refuse_local(given: Tree) -> None:
    for leaf in jax.tree.leaves(given):
        if np.ndim(leaf) and not (isinstance(leaf, jax.Array) and len(leaf.devices()) > 1):
            raise ValueError(
                f"an array {np.shape(leaf)} belongs to this process only, but other "
                "arrays belong to all processes: give all rows of this process to "
                "jaxmle.distributed.rows(…)"
            )


def _coded(clusters: Tree, length: int) -> tuple[Tree, ...]:
    """The labels of each dimension of clusters as integers; jax arrays unchanged."""
    is_pair = isinstance(clusters, tuple | list) and len(clusters) == 2 and np.ndim(clusters[0])
    dimensions = tuple(clusters) if is_pair else (clusters,)
    return tuple(
        labels if isinstance(labels, jax.Array) else cluster_codes(labels, length)[0]
        for labels in dimensions
    )


@dataclass(frozen=True, eq=False)
class _Local:
    """What one process gave, read."""

    data: Tree
    rows: int
    weights: ndarray | None
    clusters: tuple[ndarray, ...]


def _local(data: Data, weights: Weights | None, clusters: Clusters) -> _Local:
    held = host_data(data, np.float64)
    number = data_length(held)
    if number is None:
        raise ValueError("data holds no array: give the rows of this process")
    values = None
    if weights is not None:
        check_weights_given(weights)
        values = np.asarray(weights.values, np.float64)
        if values.shape != (number,):
            raise ValueError(
                f"weights must have shape ({number},), one for each row; got {values.shape}"
            )
    labels = () if clusters is None else _labels(clusters, number)
    return _Local(held, number, values, labels)


def _labels(clusters: Tree, number: int) -> tuple[ndarray, ...]:
    """The labels of one or two dimensions, each (n,) integers."""
    is_pair = isinstance(clusters, tuple | list) and len(clusters) == 2 and np.ndim(clusters[0])
    columns = tuple(np.asarray(column) for column in (clusters if is_pair else (clusters,)))
    for column in columns:
        if column.shape != (number,) or column.dtype.kind not in "iu":
            raise ValueError(
                f"clusters must be whole numbers, one for each of the {number} rows, that mean "
                f"the same in all processes; got {shown(clusters)}"
            )
    return tuple(column.astype(np.int64) for column in columns)


def _devices() -> list[Device]:
    """All devices, those of one process next to each other."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def _devices_of_processes() -> list[int]:
    """How many devices each process has."""
    owners = [device.process_index for device in jax.devices()]
    return [owners.count(process) for process in range(jax.process_count())]
