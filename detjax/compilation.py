"""The compilation cache, and a count of compiled programs."""

import os
import pathlib

import jax

VARIABLE = "DETJAX_CACHE"
_built = 0


def count() -> int:
    """How many programs this process has built, or fetched from the cache, so far.

    If it grows after the first steps of a run, shapes are changing.
    """
    return _built


def _listen(event: str, *_, **__) -> None:
    global _built
    if event == "/jax/core/compile/backend_compile_duration":
        _built += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


def enable_cache() -> str | None:
    """Enables JAX's cache and returns its folder; None if it is off.

    The folder is $DETJAX_CACHE, else $JAX_COMPILATION_CACHE_DIR, else
    ~/.cache/detjax/xla; DETJAX_CACHE=off leaves it off. A folder that cannot be written
    leaves it off too: a cache is never worth an error.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted == "off":
        return None
    folder = wanted or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        if not folder:
            home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
            folder = str(pathlib.Path(home).expanduser() / "detjax" / "xla")
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    jax.config.update("jax_compilation_cache_dir", folder)
    # Small programs count too: a script compiles dozens of them before it starts.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder
