"""The periphery in one pass: a small C library, built on first use; else torch operations.

Noise is Threefry2x32-20 (Salmon et al., SC 2011) with Box-Muller: the normal of (key, image,
output) does not depend on batch size, number of threads or order. Both implementations draw the
same integers; floating-point results differ in the last bits.
"""

import ctypes
import functools
import hashlib
import importlib.resources
import itertools
import logging
import multiprocessing
import os
import platform
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from analog_samson.compiled import operations, structs

_FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"),
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),
)
_PARTS = "lanes", "normals", "converters", "products", "per_vector", "few_channels"
"""Source files of the C library, which are concatenated in this order."""

COMPILER_TAKES_S = 120.0
"""Longest wait for the C compiler [s], our choice: it takes a few seconds."""

_log = logging.getLogger(__name__)


def dac(x: Tensor, gain: Tensor, levels: int, rounds: bool) -> Tensor:
    """Convert inputs to DAC levels.

    Args:
        x: Inputs of an array, any shape, float32.
        gain: Levels per model unit, shape (); for an ideal DAC 1 / largest input.
        levels: The largest level; 1 for an ideal DAC.
        rounds: Whether to round to levels; False only clips.

    Returns:
        Levels, shape of x.
    """
    if not torch.compiler.is_compiling():
        return _dac(x, gain, levels, rounds)
    # torch.compile does not vectorise it when it is fused with preceding operations
    if x.device.type == "cpu" and (x.ndim != 4 or x.shape[1] < 16):
        out: Tensor = _dac_operation(x, gain, levels, rounds)
        return out
    return operations.dac(x, gain, levels, rounds)


def _dac(x: Tensor, gain: Tensor, levels: int, rounds: bool) -> Tensor:
    if (built := library_for(x)) and _is_dense(x):
        out = torch.empty_like(x)
        built.dac(x.data_ptr(), out.data_ptr(), x.numel(), float(gain), rounds, levels)
        return out
    return operations.dac(x, gain, levels, rounds)


def adc(
    y: Tensor,
    previous: Tensor | None,
    how: operations.Converter,
    stream: Tensor,
    *,
    block: int,
    call: int,
) -> Tensor:
    """Add noise to the products of an array, round, clip and scale them; units are ADC steps.

    Args:
        y: Products, float32 or bfloat16, contiguous, shape (images, positions, channels), or
            (images, channels, positions), or channels and positions repeated if the layer
            processes several windows of an image.
        previous: Added to the result, shape of y; or None.
        how: Noise, ADC and scale.
        stream: int64: index of the first image in the whole set, then a key for every row block.
        block: Row block, which selects the key.
        call: Number of earlier uses of the layer in this forward pass.

    Returns:
        Outputs, float32; on a CPU they are written to y if y is float32.
    """
    if y.device.type != "cpu":
        return _adc_in_torch(y.float(), previous, how, stream, block, call)
    apply = _adc_operation if torch.compiler.is_compiling() else _adc
    out = y if y.dtype == torch.float32 else torch.empty_like(y, dtype=torch.float32)
    products = None if out is y else y
    apply(out, products, previous, [*how[:3], stream], [*map(int, how[3:]), block, call])
    return out


def _adc(
    y: Tensor, products: Tensor | None, previous: Tensor | None, held: list[Tensor], how: list[int]
) -> None:
    """Convert in place; `held` and `how`: the converter's tensors, stream; flags, block, call."""
    if not y.numel():
        return
    built = library_for(y)
    (*tensors, stream), (*flags, block, call) = held, how
    converter = operations.Converter(*tensors, *map(bool, flags))  # type: ignore[arg-type]
    if built is None or not (previous is None or previous.is_contiguous()):
        x = y if products is None else products.float()
        y.copy_(_adc_in_torch(x, previous, converter, stream, block, call))
        return
    scale, offset, limits, rounds, _, innermost = converter
    noise, levels = limits.tolist()
    first_image, *keys = stream.tolist()
    key = operations.key_of_call(keys[block], call)
    n_images, outer, inner = y.shape

    def at(tensor: Tensor | None, image: int) -> int:
        if tensor is None:
            return 0
        return int(tensor.data_ptr()) + image * outer * inner * tensor.element_size()

    def run(first: int, count: int) -> int:
        return int(
            built.adc(
                *(at(y, first), at(products, first), at(previous, first)),
                *(count, outer, inner, len(scale), innermost, scale.data_ptr(), offset.data_ptr()),
                *(key, first_image + first, noise, rounds, levels),
            )
        )

    share(run, n_images)


def _adc_in_torch(
    y: Tensor,
    previous: Tensor | None,
    how: operations.Converter,
    stream: Tensor,
    block: int,
    call: int,
) -> Tensor:
    """The same in torch operations: those for several chips, with one chip."""
    how = how._replace(scale=how.scale[None], offset=how.offset[None])
    keys = operations.key_of_call(stream[None, 1 + block], call)
    return operations.adc(y, previous, how, keys, stream[0])


def normals(like: Tensor, n_images: int, stream: Tensor, *, block: int, call: int) -> Tensor:
    """Draw a standard normal for every output of a layer.

    Args:
        like: Outputs, images first, float32.
        n_images: Number of images.
        stream: As for :func:`adc`; so are block and call.
        block: See stream.
        call: See stream.

    Returns:
        Normals, shape of ``like``; each depends on the key, the image and the index within it.
    """
    if not torch.compiler.is_compiling():
        return _normals(like, n_images, stream, block, call)
    drawn: Tensor = _normals_operation(like, n_images, stream, block, call)
    return drawn


def _normals(like: Tensor, n_images: int, stream: Tensor, block: int, call: int) -> Tensor:
    shape = n_images, like.numel() // max(1, n_images)
    built = library_for(like)
    if built is None:
        key = operations.key_of_call(stream[1 + block], call)
        return operations.normals(key, stream[0], shape, like.device).view(like.shape)
    out = torch.empty(shape)
    first_image, *keys = stream.tolist()
    key = operations.key_of_call(keys[block], call)

    def run(first: int, count: int) -> int:
        for image in range(first, first + count):
            built.normals(out[image].data_ptr(), shape[1], key, first_image + image)
        return 0

    share(run, n_images)
    return out.view(like.shape)


def share(run: Callable[[int, int], int], n_images: int) -> None:
    """Distribute images over as many threads as torch uses.

    Args:
        run: Takes the index of the first image and the number of images; returns 0, or 1 if
            memory could not be allocated.
        n_images: Number of all images.

    Raises:
        MemoryError: If memory could not be allocated.
    """
    n_threads = min(torch.get_num_threads(), n_images)
    if n_threads == 1:
        failed = [run(0, n_images)]
    else:  # ctypes releases the interpreter lock
        bounds = [n_images * i // n_threads for i in range(n_threads + 1)]
        counts = [b - a for a, b in itertools.pairwise(bounds)]
        failed = list(_pool(n_threads).map(run, bounds, counts))
    if any(failed):
        raise MemoryError("No memory for one image; free memory, or use fewer workers.")


_dac_operation = torch.library.custom_op("analog_samson::dac", _dac, mutates_args=())
_dac_operation.register_fake(lambda x, gain, levels, rounds: torch.empty_like(x))
_adc_operation = torch.library.custom_op("analog_samson::adc", _adc, mutates_args={"y"})
_normals_operation = torch.library.custom_op("analog_samson::normals", _normals, mutates_args=())
_normals_operation.register_fake(lambda like, *others: like.new_empty(like.shape))


def library_for(x: Tensor) -> ctypes.CDLL | None:
    """The C library, if it is available and supports a tensor; else None."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return None
    return library()


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


@functools.lru_cache(maxsize=1)
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load the C library, and build it first if needed; None, with one warning, if that fails.

    The cache holds ``kernels-<sources and processor>-<compiler>-<SHA-256 of the file>.so``. A file
    whose contents do not match its name is not loaded but built again. A file or folder that other
    users can write to, or that another user owns, is not used. Without a compiler, a cached library
    of any compiler is used.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc"))), None)
    package = importlib.resources.files("analog_samson.compiled")
    text = "\n".join(package.joinpath(f"{part}.c").read_text(encoding="utf-8") for part in _PARTS)
    identity = "\n".join([text, *_FLAGS, _processor()]).encode()
    name = f"kernels-{_digest(identity)[:16]}"
    cache = _cache()
    reason = "There is no C compiler on PATH and no library in the cache (install gcc)"
    made_by = "*"
    if compiler is not None:
        try:
            made_by = _digest(_version(compiler))[:16]
        except subprocess.TimeoutExpired:
            reason = _too_slow(compiler)
            compiler = None
    for kept in sorted(cache.glob(f"{name}-{made_by}-*.so")) if cache else []:
        if loaded := _load_kept(kept):
            return loaded
    if compiler is None:
        _warn_slow(reason)
        return None
    for place in dict.fromkeys((cache, None)):  # without a cache: the temporary folder
        try:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                built = _build(compiler, text, Path(folder))
                if place:
                    kept = place / f"{name}-{made_by}-{_digest(built.read_bytes())}.so"
                    built = built.replace(kept)
                return _load(built)
        except OSError as error:  # a full disk, or a folder mounted noexec
            reason = f"The library of kernels cannot be kept or loaded ({error})"
        except subprocess.CalledProcessError as error:  # a compiler that does not support the flags
            said = error.stderr.decode(errors="replace").strip()
            reason = f"{compiler} cannot build the kernels ({said})"
        except subprocess.TimeoutExpired:
            reason = _too_slow(compiler)
            break
    _warn_slow(reason)
    return None


def _too_slow(compiler: str) -> str:
    return f"The C compiler {compiler} did not end within {COMPILER_TAKES_S:g} s"


def _warn_slow(reason: str) -> None:
    level = logging.WARNING if multiprocessing.parent_process() is None else logging.DEBUG
    _log.log(
        level,
        "%s: torch operations are used instead, with the same random numbers; many times slower.",
        reason,
    )


def _cache() -> Path | None:
    """The folder of built libraries; None if it cannot be created or others can write to it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "analog-samson" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_own = _is_own(folder)
    except OSError:
        return None
    if is_own:
        return folder
    _log.warning(
        "The folder %s belongs to another user or can be written by others, so no library is "
        "loaded from it and every process builds its own; change its owner or mode (chmod 700).",
        folder,
    )
    return None


def _is_own(path: Path) -> bool:
    """Whether only this user can write to a file or folder."""
    found = path.lstat()
    is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_plain and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _load_kept(path: Path) -> ctypes.CDLL | None:
    """Load a library of the cache; remove it if its contents do not match its name."""
    try:
        if not _is_own(path):
            return None
        if path.stem.endswith(_digest(path.read_bytes())):
            return _load(path)
        path.unlink()
    except OSError:  # removed in the meantime, or not for this system
        pass
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _version(compiler: str) -> bytes:
    try:
        said = _output([compiler, "--version"])
    except (OSError, subprocess.CalledProcessError):
        said = b""
    return compiler.encode() + b"\n" + said


def _output(command: list[str]) -> bytes:
    """Standard output of a command; its processes are ended if it takes too long."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            said, errors = process.communicate(timeout=COMPILER_TAKES_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said, errors)
    return said


def _build(compiler: str, text: str, folder: Path) -> Path:
    source, built = folder / "kernels.c", folder / "kernels.so"
    source.write_text(text, encoding="utf-8")
    command = [compiler, *_FLAGS, str(source), "-o", str(built), "-lm"]
    _output(command)
    built.chmod(0o700)
    return built


def _processor() -> str:
    """The processor that the code is built for; machines may share a cache."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    known = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    return "\n".join([platform.platform(), platform.machine(), *known])


def _load(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    pointer, count, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
    number = ctypes.c_float
    loaded.dac.argtypes = [pointer, pointer, count, number, ctypes.c_int, number]
    loaded.dac.restype = None
    loaded.adc.argtypes = [
        *(pointer, pointer, pointer, count, count, count, count, ctypes.c_int, pointer, pointer),
        *(word, word, number, ctypes.c_int, number),
    ]
    loaded.adc.restype = ctypes.c_int
    loaded.per_vector.argtypes = [pointer, pointer, pointer, count, word]
    loaded.per_vector.restype = ctypes.c_int
    loaded.layer_layout.argtypes = [pointer, count]
    loaded.layer_layout.restype = count
    structs.check(loaded)
    loaded.lanes.restype = ctypes.c_int64
    loaded.few_channels.argtypes = [pointer] * 4 + [count] * 9
    loaded.few_channels.restype = ctypes.c_int
    loaded.few_channels_side.restype = ctypes.c_int64
    loaded.max_pool_2x2.argtypes = [pointer, pointer, *[count] * 4]
    loaded.max_pool_2x2.restype = ctypes.c_int
    loaded.normals.argtypes = [pointer, count, word, word]
    loaded.normals.restype = None
    return loaded
