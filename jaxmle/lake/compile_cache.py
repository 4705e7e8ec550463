"""A folder of compiled programs, which new processes load instead of compiling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from jaxmle._types import PathLike, Tree
from jaxmle.parameters.arguments import check_path

# Every program is kept, however small: a fit consists of about twenty that each compile in 0.1 to 1
# s, most of them below jax's own threshold of one second.
CACHE_SETTINGS = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
FOLDER_SETTING = "jax_compilation_cache_dir"


@contextlib.contextmanager
def compile_cache(folder: PathLike | None) -> Iterator[None]:
    """A context in which compiled programs are kept in ``folder``, and loaded from there.

    It is jax's persistent cache, switched on for the block and put back as it was afterwards. A
    program is found again by any process of the same jax on the same kind of processor; several
    processes may share the folder. Programs that are in memory already are not written.

    Args:
        folder: a folder of its own, made if it is not there; or None, which changes nothing.

    Raises:
        TypeError: for what is no path.
        OSError: the folder cannot be made.

    >>> import tempfile, os, numpy as np, jaxmle as jm
    >>> folder = tempfile.mkdtemp()
    >>> loglik = lambda params, y: -((y - params["mean"]) ** 2)
    >>> with jm.compile_cache(folder):
    ...     fit = jm.fit(loglik, {"mean": 0.0}, np.array([1.0, 3.0]))
    >>> len(os.listdir(folder)) > 0
    True
    """
    if folder is None:
        yield
        return
    path = check_path("cache", folder, "a folder for compiled programs, such as 'cache'")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the cache of compiled programs {str(path)!r} cannot be made: "
            f"{error.strerror or error}. Give a writable folder, or leave cache out",
        ) from error
    with _configured(CACHE_SETTINGS | {FOLDER_SETTING: str(path.absolute())}):
        yield


@contextlib.contextmanager
def _configured(settings: dict[str, Tree]) -> Iterator[None]:
    """jax's configuration with these settings, and what it was before. jax opens its cache only
    once, so it is reset.
    """
    before = {name: getattr(jax.config, name) for name in settings}
    if before == settings:  # a block inside a block, or the user's own folder
        yield
        return
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def _configure(settings: dict[str, Tree]) -> None:
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()
