"""Files that the command line reads and writes."""

from __future__ import annotations

from pathlib import Path

from jaxmle._types import DataFrame
from jaxmle.data.table import needed
from jaxmle.runtime.npz import write_atomically

READABLE = (".csv", ".tsv", ".parquet")


def extension_of(path: str, known: tuple[str, ...]) -> str:
    """The ending of a file's name, checked to be one of those known."""
    extension = Path(path).suffix.lower()
    if extension not in known:
        raise ValueError(f"{path} must end in {', '.join(known)}, which says what format it has")
    return extension


def read_table(path: str) -> DataFrame:
    """The rows of a file as a pandas frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another kind, or holds no table.
    """
    extension = extension_of(path, READABLE)
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    pandas = needed("pandas")
    try:
        if extension == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(
            path, sep="\t" if extension == ".tsv" else ",", float_precision="round_trip"
        )
    except pandas.errors.ParserError as error:
        raise ValueError(f"{path} is no table: {error}") from error
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty") from error


def write(path: str, content: str | bytes) -> None:
    """Write a file whole, or not at all."""
    ending = "" if isinstance(content, bytes) or content.endswith("\n") else "\n"
    text = content if isinstance(content, bytes) else f"{content}{ending}".encode()
    write_atomically(Path(path), text)
