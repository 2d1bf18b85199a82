"""What every test needs: eight CPU devices, checked signatures, paths to data."""

import atexit
import contextlib
import ctypes
import gc
import os
import pathlib
import shutil
import sys
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# xdist's workers take the flags and the cache of the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _FLAGS: dict[str, object] = {"--xla_force_host_platform_device_count": 8}
    if "long" not in " ".join(sys.argv[1:]).replace("not long", "").split():
        # Programs of most tests take seconds to compile and run for moments: XLA's old
        # emitters without LLVM's optimizations are three to five times as fast at that.
        # Long ones train or measure, and are compiled as they are for use.
        _FLAGS |= {
            "--xla_backend_optimization_level": 0,
            "--xla_llvm_disable_expensive_passes": "true",
        }
        # Later versions have no old emitters, and end at a flag that they do not know.
        if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
            _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
    _GIVEN = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join(
        [_GIVEN, *(f"{k}={v}" for k, v in _FLAGS.items() if k not in _GIVEN)]
    ).strip()
    # Tests compile the same small programs again and again, here and in scripts.
    _CACHE = tempfile.mkdtemp(prefix="detjax-tests-")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import pytest
from jaxtyping import install_import_hook

# Before anything imports them: modules that are loaded already are not checked.
install_import_hook(
    ["detjax.ops", "detjax.losses", "detjax.data.paste", "detjax.data.patches"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Lets go of what a file of tests has compiled, which adds up to gigabytes.

    Another file that needs the same finds it in the cache on disk.
    """
    yield
    if "families" in sys.modules:
        sys.modules["families"].forget()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # only glibc keeps what is free
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _folder(variable: str, default: str) -> pathlib.Path:
    path = pathlib.Path(os.environ.get(variable, ROOT / default)).resolve()
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable} to where it is")
    return path


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Real data sets (DETJAX_DATA); skips where absent."""
    return _folder("DETJAX_DATA", "../shared/data")


@pytest.fixture(scope="session")
def weights_dir() -> pathlib.Path:
    """Real trained weights (DETJAX_WEIGHTS); skips where absent."""
    return _folder("DETJAX_WEIGHTS", "../shared/weights")


@pytest.fixture(scope="session")
def goldens_dir() -> pathlib.Path:
    """What original implementations compute (DETJAX_GOLDENS); skips where absent."""
    return _folder("DETJAX_GOLDENS", "../shared/goldens")
