"""The one function that every engine calls: it fits the groups of a file and writes the fits. It
lives in a module, so that engines send it by name, and the model that arrives with it stays in the
process with everything compiled for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxmle._types import Loglik, Tree, ndarray
from jaxmle.data.table import needed
from jaxmle.lake.compile_cache import compile_cache
from jaxmle.lake.fit_table import Fitted, fitted
from jaxmle.lake.key_index import hashes_of
from jaxmle.lake.outputs import Folder, write_fits
from jaxmle.lake.partitions import Partition
from jaxmle.lake.request import Request
from jaxmle.lake.tables import key_table, key_type, refuse_absent
from jaxmle.parameters.arguments import first_line
from jaxmle.workers.engine import end_with_parent
from jaxmle.workers.payload import unpacked

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Work:
    """What all files of a source have in common.

    ``content``: the model with its request, packed for other processes or as is; ``schema`` of the
    source; ``columns`` to read, None for all; ``folder`` of the fits; ``cache`` of compiled
    programs.
    """

    content: bytes | tuple[Loglik, Request]
    schema: pa.Schema
    columns: list[str] | None
    folder: Folder
    cache: str | None


@dataclass(frozen=True)
class Done:
    """A fitted file: its footer, and the hash of each key."""

    footer: dict[str, Tree]
    hashes: ndarray


@dataclass(frozen=True)
class Failed:
    """A file that could not be fitted, and why. The text is kept, since an exception from another
    library may not survive the way back from a worker.
    """

    kind: str
    errno: int | None
    reason: str


def fit_partition(work: Work, partition: Partition) -> Done | Failed:
    """Fit the groups of a file and write the fits. Failures are returned, not raised: an engine
    would retry.
    """
    end_with_parent()
    try:
        with compile_cache(work.cache):
            return _fitted_partition(work, partition)
    except MemoryError:  # a smaller file may fit
        return Failed("MemoryError", None, "out of memory: split it into smaller files")
    except OSError as error:
        return Failed("OSError", error.errno, first_line(error))
    except Exception as error:  # a user's likelihood may raise anything; the caller gets it
        known = next(
            (kind.__name__ for kind in (TypeError, ValueError) if isinstance(error, kind)), ""
        )
        name = "" if known else f"{type(error).__name__}: "
        return Failed(known or "RuntimeError", None, f"{name}{error}")


def _fitted_partition(work: Work, partition: Partition) -> Done:
    content = work.content
    model, request = unpacked(content) if isinstance(content, bytes) else content
    table = _read(work, partition)
    fits = fitted(model, table, request) if table.num_rows else _nothing(table, request)
    counted = fits.table.column("status").value_counts().to_pylist()
    footer = {
        "source": partition.facts,
        "rows": table.num_rows,
        "dropped": fits.dropped,
        "groups": fits.table.num_rows,
        "statuses": {entry["values"]: entry["counts"] for entry in counted},
        "coding": fits.coding,
    }
    write_fits(work.folder, partition.output, fits.table, footer)
    return Done(footer, hashes_of(key_table(fits.table, request.by)))


def _read(work: Work, partition: Partition) -> pa.Table:
    """The columns of a file that are used, with those from its path."""
    fragment = partition.fragment
    physical = fragment.physical_schema.names
    datasets = needed("pyarrow.dataset")
    of_path = datasets.get_partition_keys(fragment.partition_expression)
    wanted = work.schema.names if work.columns is None else work.columns
    refuse_absent(list(wanted), [*physical, *of_path], "the file")
    table = fragment.to_table(schema=work.schema, columns=work.columns)
    types = needed("pyarrow").types
    for i, field in enumerate(table.schema):
        if types.is_dictionary(field.type) and not field.type.ordered:
            # Each file has its own dictionary, whose order means nothing.
            table = table.set_column(i, field.name, table.column(i).cast(key_type(field.type)))
    return table


def _nothing(table: pa.Table, request: Request) -> Fitted:
    """The fits of a file without rows: a table without groups."""
    pa = needed("pyarrow")
    keys = {name: pa.array([], key_type(table.schema.field(name).type)) for name in request.by}
    return Fitted(pa.table(keys | {"status": pa.array([], pa.string())}), 0, "")
