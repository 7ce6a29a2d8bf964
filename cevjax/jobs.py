"""Long computations cut into chunks that are computed one by one, here or by other processes, and survive anything.

A :class:`Job` says what a chunk is; :func:`run` computes all of them. With a folder every chunk is a file as soon as it
is computed: whatever ends the process, what is there is kept and a later run continues. A file of a chunk carries a
seal, a hash of its content and of all that the results depend on, so that half a file or one of another job is never
taken for the real one.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import hashlib
import io
import itertools
import json
import logging
import operator
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .cache import enable_compilation_cache
from .errors import InvalidValueError
from .results import write_atomically

if TYPE_CHECKING:
    from distributed import Client, Future

IN_FLIGHT = 2  # chunks that are with a worker, for each of its threads
CONNECT = 30.0  # seconds
LOST = "The connection to the scheduler was lost."
LIVES = 10  # of a local worker, while not a single chunk gets computed

Columns = dict[str, np.ndarray]
"""Results of a chunk: {name: array with one entry, or row, for each of its points}."""

DESCRIPTION, LOCK, CHUNKS = "job.json", "lock", "chunk-*.npz"  # the files of a folder


class Job(abc.ABC):
    """A computation on many points, cut into chunks.

    What :meth:`compute` returns depends on the job and the index alone, so that a chunk may be computed by any process
    and at any time. A job is sent to other processes with cloudpickle.

    Example:
        >>> class Squares(Job):
        ...     sizes = (3, 2)
        ...     identity = {"what": "squares"}
        ...     def compute(self, index):
        ...         x = 3 * index + np.arange(self.sizes[index])
        ...         return {"x": x, "y": x**2}
        >>> run(Squares()).columns()["y"]
        array([ 0,  1,  4,  9, 16])
    """

    @property
    @abc.abstractmethod
    def sizes(self) -> Sequence[int]:
        """Number of points in each chunk."""

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that the results depend on, as JSON can hold it: data with hashes, options, grid, seed, version."""

    @abc.abstractmethod
    def compute(self, index: int) -> Columns:
        """The results of a chunk."""


class Sequel(Job):
    """A job whose chunks follow one another: each may depend on the one before, so that workers are of no use.

    Example:
        >>> class Doubled(Sequel):
        ...     sizes = (1, 1, 1)
        ...     identity = {"what": "powers of two"}
        ...     def follow(self, index, chunks):
        ...         return {"x": 2 * chunks[index - 1]["x"] if index else np.ones(1, int)}
        >>> run(Doubled()).columns()["x"]
        array([1, 2, 4])
    """

    @abc.abstractmethod
    def follow(self, index: int, chunks: Sequence[Columns]) -> Columns:
        """The results of a chunk, from those of all before it."""

    def compute(self, index: int) -> Columns:
        raise NotImplementedError("a chunk of a sequel needs those before it")


class Chunks(Sequence[Columns]):
    """The results of a job, chunk by chunk: from memory, or read from its folder when they are asked for.

    Attributes:
        sizes: number of points in each chunk.
        folder: where the chunks are; None if in memory.
    """

    def __init__(self, sizes: Sequence[int], folder: Path | None = None, seal: bytes = b""):
        self.sizes, self.folder = tuple(sizes), folder
        self._seal, self._memory = seal, dict[int, Columns]()

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Columns:  # pyright: ignore[reportIncompatibleMethodOverride]
        index = range(len(self))[operator.index(index)]
        if self.folder is None:
            return self._memory[index]
        path = _chunk_path(self.folder, index)
        columns = self._read(index)
        if columns is None:
            raise InvalidValueError(f"File {path} is missing or damaged: resume the job to compute it again.")
        return columns

    def __iter__(self) -> Iterator[Columns]:
        return (self[index] for index in range(len(self)))

    def columns(self) -> Columns:
        """All chunks joined: for jobs whose results fit in memory."""
        chunks = list(self)
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]} if chunks else {}

    def _keep(self, index: int, columns: Columns) -> None:
        if self.folder is None:
            self._memory[index] = columns
        else:
            _write(_chunk_path(self.folder, index), _pack(columns, self._seal_of(index)))

    def _holds(self, index: int) -> bool:
        """Whether a chunk need not be computed; what is left of a damaged one is removed."""
        if self.folder is None:
            return index in self._memory
        if self._read(index) is not None:
            return True
        _chunk_path(self.folder, index).unlink(missing_ok=True)
        return False

    def _read(self, index: int) -> Columns | None:
        assert self.folder is not None
        try:
            data = _chunk_path(self.folder, index).read_bytes()
        except FileNotFoundError:
            return None
        return _unpack(data, self._seal_of(index))

    def _seal_of(self, index: int) -> bytes:
        return self._seal + str(index).encode()


def run(
    job: Job,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    workers: int = 0,
    scheduler: str | Path | None = None,
    progress: bool = False,
) -> Chunks:
    """Compute all chunks of a job.

    The results are the same to the last bit at any number of workers, as long as all machines have the same processors.

    Args:
        job: what to compute.
        folder: where the chunks are kept, each from the moment it is computed; by default in memory.
        resume: continue what is in the folder: chunks that are there are not computed again.
        workers: number of processes to start on this machine; 0 to compute in this one.
        scheduler: address, or scheduler file, of a running dask cluster that computes instead.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        InvalidValueError: the folder holds chunks and ``resume`` is not set, or it belongs to another job, holds
            something else or is in use by another process; or the workers cannot be had.
        WorkerError: workers end again and again, or the cluster is lost.
        Exception: what the computation of a chunk raises.
    """
    global _latest
    _check_workers(workers, scheduler)
    if isinstance(job, Sequel) and (workers or scheduler is not None):
        raise InvalidValueError("Argument `workers` must be 0 for a job whose chunks follow one another.")
    sizes = tuple(job.sizes)
    with _open(None if folder is None else Path(folder), job, sizes, resume) as chunks:
        _latest = None if chunks.folder is None else (chunks.folder, len(chunks))
        missing = [index for index in range(len(sizes)) if not chunks._holds(index)]
        left = sum(sizes[index] for index in missing)
        if isinstance(job, Sequel):
            computed = _followed(job, missing, chunks)
        else:
            computed = _computed(job, missing, workers, scheduler)
        with contextlib.closing(computed), _bar(progress, sum(sizes) - left, sum(sizes)) as advance:
            for index, columns in computed:
                chunks._keep(index, columns)
                advance(sizes[index])
    return chunks


_latest: tuple[Path, int] | None = None
"""Folder and number of chunks of the last job that has a folder."""


def interrupted() -> str:
    """End the local workers and tell what is kept of the last job: for a handler that ends the process at once.

    Returns:
        A sentence; empty if nothing is kept.
    """
    for process in tuple(_WORKERS):
        process.kill()
    if _latest is None or not _latest[0].is_dir():
        return ""
    folder, count = _latest
    kept = sum(1 for _ in folder.glob(CHUNKS))
    return f"Interrupted: {kept} of {count} chunks are kept in {folder}; --resume continues."


@contextlib.contextmanager
def _bar(shown: bool, done: int, total: int) -> Iterator[Callable[[int], object]]:
    """What to tell about points that are done, for a bar on standard error where that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda points: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.{0 if task.speed >= 10 else 2}f} points/s" if task.speed else "")

    console = Console(stderr=True)
    count = TextColumn("{task.completed:,.0f} of {task.total:,.0f} points")
    columns = (BarColumn(), count, Rate(), TimeRemainingColumn())
    # the rate is that of all chunks of this run: one may take longer than any shorter time
    with Progress(*columns, console=console, transient=True, speed_estimate_period=float("inf")) as bar:
        console.show_cursor()  # an interrupt may end the process at once and could not bring it back
        task = bar.add_task("", completed=done, total=total)
        yield lambda points: bar.advance(task, points)


def _followed(job: Sequel, missing: Sequence[int], chunks: Chunks) -> Generator[tuple[int, Columns]]:
    """Chunks with their indices, each from the one before it."""
    for index in missing:
        yield index, _compute(job, index, lambda index: job.follow(index, chunks))


def _compute(job: Job, index: int, function: Callable[[int], Columns] | None = None) -> Columns:
    """The results of a chunk as plain arrays.

    Raises:
        InvalidValueError: the job did not return what it must.
    """
    try:
        columns = {name: np.asarray(column) for name, column in (function or job.compute)(index).items()}
    except Exception as error:
        error.add_note(f"While chunk {index} was computed.")
        raise
    for name, column in columns.items():
        if column.dtype.hasobject or column.shape[:1] != (job.sizes[index],):
            raise InvalidValueError(
                f"Column {name!r} of chunk {index} must have {job.sizes[index]} entries that are numbers, "
                f"but has shape {column.shape} and type {column.dtype}."
            )
    return columns


# -------------------------------------------------------------------------------------------------------------- workers


class WorkerError(OSError):
    """Workers that end again and again, or a cluster that cannot be reached."""


def _check_workers(workers: int, scheduler: str | Path | None) -> None:
    """Refuse workers that cannot be had.

    Raises:
        InvalidValueError: the arguments make no sense, or the package for workers is not installed.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InvalidValueError(f"Argument `workers` must be a number of processes, 0 or more, but was {workers!r}.")
    if workers and scheduler is not None:
        raise InvalidValueError("Arguments `workers` and `scheduler` must not be given both.")
    if scheduler is not None and not Path(scheduler).is_file() and ":" not in str(scheduler):
        raise InvalidValueError(
            f"Argument `scheduler` must be an address such as tcp://host:8786 or a scheduler file, but was {scheduler}."
        )
    if (workers or scheduler is not None) and find_spec("distributed") is None:
        raise InvalidValueError('Workers need the package distributed: pip install "cevjax[cluster]"')


def _computed(
    job: Job, missing: Sequence[int], workers: int, scheduler: str | Path | None
) -> Generator[tuple[int, Columns]]:
    """Chunks with their indices, as they are computed."""
    if scheduler is not None and missing:
        with _client(scheduler) as client:
            yield from _distribute(job, missing, client, _announce(client, scheduler))
    elif workers and missing:
        with _local_workers(min(workers, len(missing))) as (address, tend), _client(address) as client:
            yield from _distribute(job, missing, client, tend)
    else:
        yield from ((index, _compute(job, index)) for index in missing)


def _distribute(
    job: Job, missing: Sequence[int], client: Client, tend: Callable[[bool], object]
) -> Iterator[tuple[int, Columns]]:
    """Let workers compute chunks, a bounded number at a time, so that memory is bounded too.

    The job travels once to each worker. A chunk whose worker dies goes to another one. Where that happens to the same
    chunk again, it may have been the fault of another one that waited at the same worker: so it gets one more chance,
    with no other chunk on the way.

    Args:
        job: that of the chunks.
        missing: indices of the chunks.
        client: of the cluster.
        tend: called now and then, and told whether a chunk was computed since.
    """
    import cloudpickle
    from distributed import KilledWorker

    sent = client.submit(_Sent, cloudpickle.dumps(job), key=f"job-{uuid.uuid4().hex}")
    waiting, suspects = deque(missing), deque[int]()
    started: dict[Future, tuple[int, str | None]] = {}  # index and address of a chunk that is on the way
    ended = SimpleQueue[Any]()
    alone = False  # whether a suspect is on the way
    patience = 1.0  # seconds that a result may take to come here

    def start(index: int, address: str | None = None) -> None:
        # left to dask, most would go to the worker that got the job first; one that is gone is no obstacle
        where: dict[str, Any] = {"workers": [address], "allow_other_workers": True} if address else {}
        future = client.submit(_Sent.compute, sent, index, key=f"chunk-{index}-{uuid.uuid4().hex}", **where)
        started[future] = index, address
        future.add_done_callback(ended.put)

    while waiting or suspects or started:
        if suspects and not started:
            alone = True
            start(suspects.popleft())
        elif waiting and not suspects and not alone:
            threads, busy = _threads(client), Counter(address for _, address in started.values())
            while waiting and len(started) < IN_FLIGHT * max(1, sum(threads.values())):
                address = min(threads, key=lambda worker: busy[worker] / threads[worker], default=None)
                busy[address] += 1
                start(waiting.popleft(), address)
        try:
            future = ended.get(timeout=0.5)
        except Empty:
            tend(False)
            continue
        index, address = started.pop(future)
        try:
            columns = future.result(timeout=patience)
        except TimeoutError:
            if future.status == "error":
                raise  # by the chunk
            # its worker died with the result, so that another one computes it again; or the network is slow
            started[future] = index, address
            future.add_done_callback(ended.put)
            patience *= 2
            tend(False)
            continue
        except CancelledError:
            raise WorkerError(LOST) from None
        except KilledWorker:
            if alone:
                raise WorkerError(f"Chunk {index} ends every process that computes it.") from None
            suspects.append(index)
            tend(False)
        else:
            tend(True)
            yield index, columns
        alone = False


def _threads(client: Client) -> dict[str, int]:
    """Address and number of threads of every worker that is there now."""
    try:
        workers: Any = client.nthreads()
    except OSError:
        raise WorkerError(LOST) from None
    return dict(workers)


def _announce(client: Client, scheduler: str | Path) -> Callable[[bool], object]:
    """What says, once, that a cluster has no workers: they may still come."""
    begun: float | None = time.monotonic()

    def tend(computed: bool) -> None:
        nonlocal begun
        begun = None if computed else begun
        if begun is not None and time.monotonic() > begun + CONNECT and not _threads(client):
            print(f"The scheduler {scheduler} has no workers yet.", file=sys.stderr)
            begun = None

    return tend


class _Sent:
    """A job on its way to a worker.

    It is unpacked by this module, so that JAX computes in 64 bits before it sees an array of the job.
    """

    def __init__(self, data: bytes):
        import cloudpickle

        enable_compilation_cache()
        self._data = data
        self._job: Job = cloudpickle.loads(data)

    def compute(self, index: int) -> Columns:
        return _compute(self._job, index)

    def __reduce__(self):
        return type(self), (self._data,)


@contextlib.contextmanager
def _client(scheduler: str | Path) -> Iterator[Client]:
    """A connection to a cluster.

    Raises:
        WorkerError: it does not answer.
        InvalidValueError: a worker has another version of cevjax.
    """
    import dask.config
    from distributed import Client

    where: dict[str, Any] = {"scheduler_file": str(scheduler)} if Path(scheduler).is_file() else {"address": scheduler}
    with _quiet(), dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        try:
            client = Client(**where, timeout=CONNECT, set_as_default=False)
        except OSError as error:
            raise WorkerError(f"No scheduler answers at {scheduler}: {error}.") from None
        try:
            found: Any = client.run(version, "cevjax", on_error="return")  # or the error that it raises
            for address, theirs in found.items():
                if theirs != version("cevjax"):
                    raise InvalidValueError(f"Worker {address} must have cevjax {version('cevjax')}, but: {theirs}.")
            yield client
        finally:
            client.close(timeout=CONNECT)


_WORKERS: list[subprocess.Popen[bytes]] = []
"""Worker processes on this machine."""


@contextlib.contextmanager
def _local_workers(count: int) -> Iterator[tuple[str, Callable[[bool], object]]]:
    """A cluster on this machine; yields its address and what replaces workers that ended.

    Each worker is a fresh interpreter, so that it needs nothing of the script that started it. It lives as long as the
    pipe to its standard input, which the system closes with this process, however that ends.
    """
    from distributed import LocalCluster

    options = {"allowed_failures": 1, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    mine: list[subprocess.Popen[bytes]] = []
    failures = 0

    def tend(computed: bool) -> None:
        nonlocal failures
        failures = 0 if computed else failures
        for process in tuple(mine):
            if process.poll() is not None:
                process.communicate()
                mine.remove(process)
                _WORKERS.remove(process)
                failures += 1
                if failures > LIVES * count:
                    raise WorkerError(f"Worker processes end again and again, with status {process.returncode}.")
        while len(mine) < count:
            mine.append(_start_worker(cluster.scheduler_address, count))
            _WORKERS.append(mine[-1])

    cluster: Any
    with _quiet(), LocalCluster(n_workers=0, scheduler_kwargs=options, silence_logs=False) as cluster:
        try:
            tend(False)
            yield cluster.scheduler_address, tend
        finally:
            for process in mine:
                process.kill()
            for process in mine:
                process.communicate()
                _WORKERS.remove(process)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from telling about workers that end: if it matters, the error says it."""
    handlers = {handler: handler.level for handler in logging.getLogger("distributed").handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in handlers.items():
            handler.setLevel(level)


def _start_worker(address: str, count: int) -> subprocess.Popen[bytes]:
    """Start one of several workers on this machine, with its share of the processors.

    The share is that of :func:`threads_at_hand`. XLA and LAPACK keep the threads that they have in this process: their
    results depend on how many that are.
    """
    environment = {
        THREADS: str(max(1, _processors() // count)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # or the first worker would take all memory of a GPU
        **os.environ,
    }
    code = f"import sys; sys.path[:] = {sys.path}; from cevjax import jobs; jobs._work({address!r})"
    # a group of its own: an interrupt from the keyboard is for this process alone
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment, process_group=0)


THREADS = "CEVJAX_THREADS"
"""Environment variable for how much is computed at once."""


def threads_at_hand() -> int:
    """How much to compute at once: one for each processor of this process, or :data:`THREADS`.

    One where another device computes, or several do.
    """
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return 1
    given = os.environ.get(THREADS, "")
    return int(given) if given.isdecimal() and int(given) > 0 else _processors()


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(address: str) -> None:
    """Compute what a scheduler says, until standard input ends."""
    from distributed import Worker

    def end_with_client() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    async def serve() -> None:
        async with Worker(address, nthreads=1, memory_limit=0, dashboard=False) as worker:
            await worker.finished()

    threading.Thread(target=end_with_client, daemon=True).start()
    with _quiet():
        asyncio.run(serve())


# -------------------------------------------------------------------------------------------------------------- folders


@contextlib.contextmanager
def _open(folder: Path | None, job: Job, sizes: tuple[int, ...], resume: bool) -> Iterator[Chunks]:
    """The chunks of a job, with a folder that no other process works on."""
    if folder is None:
        yield Chunks(sizes)
        return
    _check_folder(folder)
    description = {"identity": dict(job.identity), "chunks": len(sizes), "points": sum(sizes)}
    description = json.loads(json.dumps(description))  # as it will be read
    folder.mkdir(exist_ok=True)
    with _alone_in(folder):
        path = folder / DESCRIPTION
        if not any(folder.glob(CHUNKS)):
            _write(path, json.dumps(description, indent=2).encode())
        elif resume:
            _check_same(folder, _read_description(path), description)
        else:
            raise InvalidValueError(
                f"Folder {folder} holds an unfinished job: continue it with `resume` (--resume), or remove it."
            )
        for left in itertools.chain(folder.glob(".chunk-*"), folder.glob(".job-*")):
            left.unlink()  # of a process that was killed while it wrote
        seal = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).digest()
        yield Chunks(sizes, folder, seal)


def _check_folder(folder: Path) -> None:
    """Refuse a place where the chunks of a job cannot be kept.

    Raises:
        InvalidValueError: the folder is in none, or is a file, or holds something else than a job.
    """
    if not folder.parent.is_dir():
        raise InvalidValueError(f"Folder {folder} must be in an existing folder, but {folder.parent} is none.")
    if folder.exists() and not folder.is_dir():
        raise InvalidValueError(f"Argument `folder` must be a folder, but {folder} is a file.")
    if folder.exists() and not (folder / DESCRIPTION).exists():
        others = [p.name for p in folder.iterdir() if p.name != LOCK and not p.name.startswith(".job-")]
        if others:
            raise InvalidValueError(
                f"Argument `folder` must be new or hold the chunks of a job, but {folder} holds {sorted(others)[0]}."
            )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text())
    except ValueError:
        description = None
    if not isinstance(description, dict):
        raise InvalidValueError(f"File {path} is damaged: remove its folder to begin again.")
    return description


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to continue another job.

    Raises:
        InvalidValueError: the message names all entries that differ.
    """
    before, now = dict(_entries(old)), dict(_entries(new))
    differences = [
        f"`{name}` was {_short(before.get(name))} and is {_short(now.get(name))} now"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise InvalidValueError(f"Folder {folder} belongs to another job: {'; '.join(differences)}.")


def _short(text: str | None) -> str:
    """What a message shows of a value."""
    return "not there" if text is None else text if len(text) <= 60 else f"{text[:40]}...{text[-10:]}"


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, as JSON, of all entries of nested tables.

    Example:
        >>> list(_entries({"identity": {"seed": 1, "grid": {"x": [0.0, 1.0]}}, "chunks": 3}))
        [('seed', '1'), ('grid.x', '[0.0, 1.0]'), ('chunks', '3')]
    """
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _entries(entry, ".".join(filter(None, ("" if name == "identity" else name, key))))
    else:
        yield name, json.dumps(value)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time work on a folder, where the system has locks; they end with the process.

    Raises:
        InvalidValueError: another process does; the message says which.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 1000).decode(errors="replace") or "another process"
            raise InvalidValueError(f"Folder {folder} is in use by {owner}: one at a time can work on it.") from None
        except OSError:
            pass  # not every file system has locks
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------------------------- files


def _chunk_path(folder: Path, index: int) -> Path:
    return folder / f"chunk-{index:05d}.npz"


def _pack(columns: Columns, seal: bytes) -> bytes:
    """Columns as the content of a file: npz, which numpy reads as it is, and behind it the hash of it and the seal."""
    buffer = io.BytesIO()
    np.savez(buffer, **columns)  # pyright: ignore[reportArgumentType]
    data = buffer.getvalue()
    return data + hashlib.sha256(seal + data).digest()


def _unpack(data: bytes, seal: bytes) -> Columns | None:
    """The columns of a file; None if it is not what :func:`_pack` made under the same seal.

    Example:
        >>> data = _pack({"x": np.arange(3)}, b"of this job")
        >>> _unpack(data, b"of this job")
        {'x': array([0, 1, 2])}
        >>> _unpack(data, b"of another job"), _unpack(data[:-1], b"of this job")
        (None, None)
    """
    size = hashlib.sha256().digest_size
    if hashlib.sha256(seal + data[:-size]).digest() != data[-size:]:
        return None
    with np.load(io.BytesIO(data[:-size])) as columns:
        return dict(columns)


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, even after the power fails."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)
