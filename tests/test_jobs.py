"""Long computations: whatever ends them, what is there is kept and counts; and workers change nothing.

Run as a script, this module computes a job, for tests that end a process.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cevjax import jobs
from cevjax.errors import InvalidValueError, UnknownNameError


@jax.jit
def waves(x):
    """Sums whose last bits depend on how they are computed."""
    phases = jnp.linspace(0.0, 1.0, 700)
    matrix = jnp.sin(jnp.outer(phases, phases) * 1e3)

    def wave(t):
        return jnp.sum(jnp.sin(1e3 * t + phases)) + jnp.linalg.norm(matrix @ jnp.exp(-t * phases))

    return jax.vmap(wave)(x)


class Waves(jobs.Job):
    """A job that notes which chunks it computes, one line each, and can be told to go wrong.

    Args:
        log: the file for the notes.
        count: number of chunks; the last is smaller than the others.
        seconds: that every chunk takes.
        faulty: the chunk that raises an error.
        fatal: the chunk that ends its process, ...
        deaths: ... so many times.
        seed: all that the identity tells.
    """

    def __init__(self, log, count=6, seconds=0.0, faulty=None, fatal=None, deaths=1, seed=1):
        self.log, self.seconds, self.faulty, self.fatal, self.deaths = Path(log), seconds, faulty, fatal, deaths
        self.sizes = (7,) * (count - 1) + (3,)
        self.identity = {"seed": seed, "grid": {"x": [0.0, 1.0]}}
        self.offset = jnp.array([1e-9, 1 / 3])  # on a worker still in 64 bits

    sizes = identity = ()
    error = staticmethod(lambda: UnknownNameError("wave", "wve", ["wave"]))

    def compute(self, index):
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        time.sleep(self.seconds)
        if index == self.faulty:
            raise self.error()
        if index == self.fatal and noted(self.log).count(index) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        x = (7 * index + jnp.arange(self.sizes[index])) / 100
        return {"x": x, "y": waves(x) + self.offset[1], "n": np.full(len(x), index, np.int8)}


def noted(log):
    """The chunks that were begun."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def files(folder):
    """All chunks of a folder, as they are on disk."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("chunk-*"))}


def same(chunks, others):
    """Whether results agree to the last bit."""
    one, two = chunks.columns(), others.columns()
    return list(one) == list(two) and all(
        one[name].dtype == two[name].dtype and one[name].tobytes() == two[name].tobytes() for name in one
    )


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "scan.part"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Folder of a job that nothing happened to."""
    folder = tmp_path_factory.mktemp("expected") / "scan.part"
    jobs.run(Waves(folder.with_name("log")), folder)
    return folder


# ------------------------------------------------------------------------------------------------------------- results


def test_results_come_in_order(log):
    chunks = jobs.run(Waves(log))
    assert len(chunks) == 6 and noted(log) == [*range(6)]
    assert [int(chunk["n"][0]) for chunk in chunks] == [*range(6)]
    columns = chunks.columns()
    assert columns["x"] == pytest.approx(np.arange(38) / 100)
    assert columns["y"].dtype == float and isinstance(columns["y"], np.ndarray)
    assert list(chunks[-1]["n"]) == [5, 5, 5]
    with pytest.raises(IndexError):
        chunks[6]


def test_a_folder_holds_the_same_as_memory(log, folder):
    chunks = jobs.run(Waves(log), folder)
    assert same(chunks, jobs.run(Waves(log)))
    assert {p.name for p in folder.iterdir()} == {"job.json", "lock", *(f"chunk-{i:05d}.npz" for i in range(6))}
    assert json.loads((folder / "job.json").read_text()) == {
        "identity": {"seed": 1, "grid": {"x": [0.0, 1.0]}},
        "chunks": 6,
        "points": 38,
    }
    with np.load(folder / "chunk-00005.npz") as plain:  # by whoever wants to look into it
        assert list(plain["n"]) == [5, 5, 5]


def test_chunks_are_read_when_they_are_asked_for(log, folder):
    chunks = iter(jobs.run(Waves(log), folder))
    next(chunks)
    (folder / "chunk-00001.npz").unlink()
    with pytest.raises(InvalidValueError, match="chunk-00001.npz is missing or damaged: resume"):
        next(chunks)


def test_a_job_without_points(log, folder):
    job = Waves(log)
    job.sizes = ()
    assert jobs.run(job).columns() == {} and list(jobs.run(job, folder)) == []


@pytest.mark.parametrize("column", [np.zeros(6), np.float64(1.0), np.array([None] * 7), ["a"] * 3], ids=str)
def test_columns_must_have_an_entry_for_every_point(log, column):
    job = Waves(log)
    job.compute = lambda index: {"x": column}
    with pytest.raises(InvalidValueError, match=r"Column 'x' of chunk 0 must have 7 entries .* but has shape"):
        jobs.run(job)


# -------------------------------------------------------------------------------------------------------------- resume


def test_what_is_complete_is_not_computed_again(log, folder, expected):
    shutil.copytree(expected, folder)
    chunks = jobs.run(Waves(log), folder, resume=True)
    assert noted(log) == [] and same(chunks, jobs.run(Waves(log)))


def test_resume_may_begin(log, folder, expected):
    folder.mkdir()
    jobs.run(Waves(log), folder, resume=True)
    assert files(folder) == files(expected)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def swap(path):
    shutil.copy(path.with_name("chunk-00000.npz"), path)


def remove(path):
    path.unlink()


def forge(path):
    np.savez(path, x=np.zeros(7))


def take_from_another_job(path):
    other = path.parent.with_name("other.part")
    jobs.run(Waves(path.parent.with_name("other.log"), seed=2), other)
    shutil.copy(other / path.name, path)


@pytest.mark.parametrize("damage", [cut, flip, empty, swap, remove, forge, take_from_another_job])
def test_a_damaged_chunk_is_computed_again(log, folder, expected, damage):
    shutil.copytree(expected, folder)
    damage(folder / "chunk-00003.npz")
    jobs.run(Waves(log), folder, resume=True)
    assert noted(log) == [3] and files(folder) == files(expected)


def test_another_job_is_refused(log, folder, expected):
    shutil.copytree(expected, folder)
    job = Waves(log, count=5, seed=2)
    del job.identity["grid"]
    job.identity["data"] = "new"
    with pytest.raises(InvalidValueError) as error:
        jobs.run(job, folder, resume=True)
    assert str(error.value) == (
        f"Folder {folder} belongs to another job: `seed` was 1 and is 2 now; `grid.x` was [0.0, 1.0] and is not there "
        'now; `chunks` was 6 and is 5 now; `points` was 38 and is 31 now; `data` was not there and is "new" now.'
    )
    assert files(folder) == files(expected)


def test_a_long_value_is_cut_in_the_message(log, folder):
    job = Waves(log)
    job.identity["grid"] = [*range(1000)]
    jobs.run(job, folder)
    job.identity["grid"] = [*range(2000)]
    with pytest.raises(InvalidValueError, match=r"`grid` was \[0, 1, .*\.\.\. 998, 999\] and is \[0, 1, ") as error:
        jobs.run(job, folder, resume=True)
    assert len(str(error.value)) < 400


def test_numbers_that_are_not_finite_are_no_difference(log, folder):
    job = Waves(log)
    job.identity = {"range": (np.inf, float("nan"))}
    jobs.run(job, folder)
    jobs.run(job, folder, resume=True)
    assert noted(log) == [*range(6)]


def test_a_job_that_kept_nothing_is_no_obstacle(log, folder, expected):
    with pytest.raises(UnknownNameError):
        jobs.run(Waves(log, seed=2, faulty=0), folder)
    jobs.run(Waves(log), folder)
    assert files(folder) == files(expected)
    jobs.run(Waves(log), folder, resume=True)


def test_an_unfinished_job_is_not_taken_for_a_new_one(log, folder, expected):
    shutil.copytree(expected, folder)
    with pytest.raises(InvalidValueError, match=r"holds an unfinished job: continue it with `resume` \(--resume\)"):
        jobs.run(Waves(log), folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("there/scan.part", "must be in an existing folder, but .*there is none"),
        ("file", "must be a folder, but .*file is a file"),
        ("full", "must be new or hold the chunks of a job, but .*full holds thesis.tex"),
        ("broken", "job.json is damaged: remove its folder"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_refused(log, tmp_path, name, message, resume):
    (tmp_path / "file").write_text("")
    for path in ("full/thesis.tex", "broken/job.json", "broken/chunk-00000.npz"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{")
    if name == "broken" and not resume:
        message = "unfinished job"
    with pytest.raises(InvalidValueError, match=message):
        jobs.run(Waves(log), tmp_path / name, resume=resume)
    assert (tmp_path / "full" / "thesis.tex").exists() and noted(log) == []


# ---------------------------------------------------------------------------------------------------- what can go wrong


def test_an_error_keeps_the_chunks_before_it(log, folder, expected):
    with pytest.raises(UnknownNameError) as error:
        jobs.run(Waves(log, faulty=2), folder)
    assert error.value.__notes__ == ["While chunk 2 was computed."]
    assert [*files(folder)] == ["chunk-00000.npz", "chunk-00001.npz"]
    jobs.run(Waves(log), folder, resume=True)
    assert noted(log) == [0, 1, 2, 2, 3, 4, 5] and files(folder) == files(expected)


def test_a_full_disk_keeps_the_chunks_before_it(log, folder, expected, monkeypatch):
    def full(handle):
        if len(files(folder)) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            jobs.run(Waves(log), folder)
    assert {p.name for p in folder.iterdir()} == {"job.json", "lock", "chunk-00000.npz", "chunk-00001.npz"}
    jobs.run(Waves(log), folder, resume=True)
    assert noted(log) == [0, 1, 2, 2, 3, 4, 5] and files(folder) == files(expected)


def test_one_at_a_time_works_on_a_folder(log, folder):
    job = Waves(log)

    def compute(index):
        with pytest.raises(InvalidValueError) as error:
            jobs.run(Waves(log), folder, resume=bool(index % 2))
        assert f"{folder} is in use by process {os.getpid()} on " in str(error.value)
        return Waves.compute(job, index)

    job.compute = compute
    assert len(jobs.run(job, folder)) == 6
    jobs.run(Waves(log), folder, resume=True)  # the lock ended with the run


@contextlib.contextmanager
def script(*arguments):
    """This module as a process."""
    process = subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_ended_can_be_resumed(log, folder, expected, number):
    with script(folder, log, 0.1) as process:
        wait_for(lambda: len(files(folder)) == 2)
        (folder / ".chunk-00002-abc.npz").write_bytes(b"half")  # had it been ended while it wrote
        process.send_signal(number)
        process.wait(10)
        assert process.returncode == -number
    kept = [int(name[6:11]) for name in files(folder)]
    assert 2 <= len(kept) < 6
    log.unlink()
    jobs.run(Waves(log), folder, resume=True)
    assert noted(log) == [index for index in range(6) if index not in kept]
    assert files(folder) == files(expected) and not list(folder.glob(".*"))


def test_a_handler_can_tell_what_is_kept(log, folder, monkeypatch):
    monkeypatch.setattr(jobs, "_latest", None)
    assert jobs.interrupted() == ""
    jobs.run(Waves(log))
    assert jobs.interrupted() == ""
    with pytest.raises(UnknownNameError):
        jobs.run(Waves(log, faulty=2), folder)
    assert jobs.interrupted() == f"Interrupted: 2 of 6 chunks are kept in {folder}; --resume continues."
    shutil.rmtree(folder)
    assert jobs.interrupted() == ""


# ------------------------------------------------------------------------------------------------------------ progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal_alone(log, folder, expected, monkeypatch):
    shutil.copytree(expected, folder)
    (folder / "chunk-00001.npz").unlink()
    for stream, shown, told in ((Terminal(), True, True), (io.StringIO(), True, False), (Terminal(), False, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        jobs.run(Waves(log), folder, resume=True, progress=shown)
        assert ("38 of 38 points" in stream.getvalue()) == told
    assert stream.getvalue() == ""


# ------------------------------------------------------------------------------------------------------------- workers

needs_workers = pytest.mark.skipif(find_spec("distributed") is None, reason="the extra `cluster` is not installed")


@pytest.fixture(scope="module")
def by_value():
    """Workers cannot import this module."""
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def cluster(by_value):
    """A running cluster: two workers, threads of this process."""
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        yield cluster


def test_a_cluster_computes_the_same(log, folder, cluster, expected):
    jobs.run(Waves(log), folder, scheduler=cluster.scheduler_address)
    assert files(folder) == files(expected)
    assert sorted(noted(log)) == [*range(6)]


def test_a_cluster_is_found_by_its_file(log, tmp_path, cluster, expected):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps(cluster.scheduler.identity()))
    assert same(jobs.run(Waves(log), scheduler=file), jobs.run(Waves(log)))


def test_an_error_on_a_worker_is_itself(log, folder, cluster):
    with pytest.raises(UnknownNameError, match="Did you mean 'wave'?") as error:
        jobs.run(Waves(log, faulty=2), folder, scheduler=cluster.scheduler_address)
    assert error.value.valid == ["wave"]
    log.unlink()
    kept = [int(name[6:11]) for name in files(folder)]
    jobs.run(Waves(log), folder, resume=True, scheduler=cluster.scheduler_address)
    assert sorted(noted(log)) == [index for index in range(6) if index not in kept]


def test_an_error_that_workers_know_themselves(log, cluster):
    job = Waves(log, faulty=2)
    job.error = lambda: TimeoutError("by the chunk")
    with pytest.raises(TimeoutError, match="by the chunk"):
        jobs.run(job, scheduler=cluster.scheduler_address)


def test_few_chunks_are_on_the_way(log, folder, cluster, monkeypatch):
    keep, ahead = jobs.Chunks._keep, []

    def slow_keep(self, index, columns):
        time.sleep(0.05)
        ahead.append(len(noted(log)) - len(files(folder)))
        keep(self, index, columns)

    monkeypatch.setattr(jobs.Chunks, "_keep", slow_keep)
    jobs.run(Waves(log, count=20), folder, scheduler=cluster.scheduler_address)
    assert max(ahead) <= 2 * jobs.IN_FLIGHT + 1 < 20  # those on the way, and the one that is just kept


class Cargo:
    """What notes that it arrived somewhere."""

    def __init__(self, log):
        self.log = log

    def __reduce__(self):
        return arrive, (self.log,)


def arrive(log):
    with log.open("a") as file:
        file.write("1\n")
    return Cargo(log)


def test_a_job_is_sent_to_a_worker_once(log, tmp_path, cluster):
    job = Waves(log, count=20)
    job.cargo = Cargo(tmp_path / "arrivals")
    jobs.run(job, scheduler=cluster.scheduler_address)
    assert 1 <= len(noted(job.cargo.log)) <= 4  # two, but for a transfer that is repeated


def test_nothing_is_left_on_a_cluster(log, cluster):
    assert same(jobs.run(Waves(log), scheduler=cluster.scheduler_address), jobs.run(Waves(log)))
    wait_for(lambda: not cluster.scheduler.tasks)
    assert not cluster.scheduler.tasks


def test_a_worker_with_another_version_is_refused(log, cluster, monkeypatch):
    monkeypatch.setattr(
        jobs, "version", lambda name: "0.0.1" if threading.current_thread() is threading.main_thread() else "0.1"
    )
    with pytest.raises(InvalidValueError, match=r"Worker tcp://.* must have cevjax 0.0.1, but: \d"):
        jobs.run(Waves(log), scheduler=cluster.scheduler_address)


@needs_workers
def test_a_cluster_without_workers_is_waited_for(log, by_value, monkeypatch, capsys):
    import distributed

    monkeypatch.setattr(jobs, "CONNECT", 0.5)
    options = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=0, **options) as cluster:
        threading.Timer(2.0, cluster.scale, [1]).start()
        assert same(jobs.run(Waves(log), scheduler=cluster.scheduler_address), jobs.run(Waves(log)))
        assert capsys.readouterr().err.count(f"{cluster.scheduler_address} has no workers yet") == 1


@needs_workers
def test_a_cluster_that_does_not_answer(log, monkeypatch):
    monkeypatch.setattr(jobs, "CONNECT", 0.2)
    with pytest.raises(jobs.WorkerError, match="No scheduler answers at tcp://127.0.0.1:9"):
        jobs.run(Waves(log), scheduler="tcp://127.0.0.1:9")


@needs_workers
def test_a_cluster_that_is_lost(log, folder, by_value, monkeypatch):
    import distributed

    monkeypatch.setattr(jobs, "CONNECT", 0.5)
    job = Waves(log, seconds=0.1, count=50)
    options = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        address = cluster.scheduler_address
        keep = jobs.Chunks._keep

        def keep_and_lose(self, index, columns):
            keep(self, index, columns)
            if index == 2:
                cluster.close()

        with pytest.MonkeyPatch.context() as patch, pytest.raises(jobs.WorkerError, match="was lost"):
            patch.setattr(jobs.Chunks, "_keep", keep_and_lose)
            jobs.run(job, folder, scheduler=address)
    assert len(files(folder)) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "Argument `workers` must be a number of processes, 0 or more, but was -1"),
        ({"workers": True}, "Argument `workers` must be a number"),
        ({"workers": 2.0}, "Argument `workers` must be a number"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "must not be given both"),
        ({"scheduler": "nowhere.json"}, "must be an address such as .* but was nowhere.json"),
    ],
)
def test_workers_that_make_no_sense(log, arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        jobs.run(Waves(log), **arguments)


def test_workers_that_are_not_installed(log, monkeypatch):
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    with pytest.raises(InvalidValueError, match=r'pip install "cevjax\[cluster\]"'):
        jobs.run(Waves(log), workers=1)


@needs_workers
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_compute_the_same(log, folder, by_value, expected, workers):
    jobs.run(Waves(log), folder, workers=workers)
    assert files(folder) == files(expected)
    assert not jobs._WORKERS


@needs_workers
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_loses_nothing(log, folder, by_value, expected, workers):
    jobs.run(Waves(log, fatal=2), folder, workers=workers)
    assert files(folder) == files(expected)
    assert noted(log).count(2) == 2


@needs_workers
@pytest.mark.slow
def test_a_chunk_that_kills_every_worker_is_named(log, folder, by_value):
    with pytest.raises(jobs.WorkerError, match="Chunk 3 ends every process that computes it"):
        jobs.run(Waves(log, fatal=3, deaths=100, seconds=0.05), folder, workers=2)
    assert "chunk-00002.npz" in files(folder) and "chunk-00003.npz" not in files(folder)


@needs_workers
@pytest.mark.slow
def test_workers_that_cannot_start(log, by_value, monkeypatch):
    monkeypatch.setattr(jobs, "LIVES", 2)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(jobs.WorkerError, match="end again and again, with status 1"):
        jobs.run(Waves(log), workers=1)


@needs_workers
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_client(log, folder, expected, number):
    psutil = pytest.importorskip("psutil")
    with script(folder, log, 0.2, 2) as process:
        wait_for(lambda: len(files(folder)) >= 2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 2
        process.send_signal(number)
        process.wait(10)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        wait_for(lambda: not any(child.is_running() for child in children), 10)
        if number != signal.SIGKILL:
            kept = len(files(folder))
            assert process.stderr.read() == (
                f"Interrupted: {kept} of 6 chunks are kept in {folder}; --resume continues.\n"
            )
    jobs.run(Waves(log), folder, resume=True)
    assert files(folder) == files(expected)


# ------------------------------------------------------------------------------------------- chunks that follow others


class Walk(jobs.Sequel):
    """A walk whose chunks each go on where the one before ended, and which notes those that it computes.

    Args:
        log: the file for the notes.
        faulty: the chunk that raises an error.
    """

    sizes = (4, 4, 4, 4, 2)
    identity: ClassVar = {"what": "walk"}

    def __init__(self, log, faulty=None):
        self.log, self.faulty = log, faulty

    def follow(self, index, chunks):
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        if index == self.faulty:
            raise UnknownNameError("step", "stp", ["step"])
        start = chunks[index - 1]["x"][-1] if index else 0.0
        steps = np.random.default_rng(index).normal(size=self.sizes[index])
        return {"x": start + np.cumsum(steps), "first": np.full(len(steps), chunks[0]["x"][0] if index else steps[0])}


def walked():
    """The whole walk, without chunks."""
    x, parts = 0.0, []
    for index, size in enumerate(Walk.sizes):
        parts.append(x + np.cumsum(np.random.default_rng(index).normal(size=size)))
        x = parts[-1][-1]
    return np.concatenate(parts)


def test_chunks_follow_one_another(log, folder):
    memory = jobs.run(Walk(log))
    assert noted(log) == [*range(5)]
    assert np.array_equal(memory.columns()["x"], walked()) and np.all(memory.columns()["first"] == walked()[0])
    assert same(jobs.run(Walk(log), folder), memory) and len(files(folder)) == 5


def test_a_sequel_is_continued_where_it_ended(log, folder, tmp_path):
    whole = tmp_path / "whole.part"
    jobs.run(Walk(log), whole)
    log.unlink()
    with pytest.raises(UnknownNameError) as error:
        jobs.run(Walk(log, faulty=3), folder)
    assert error.value.__notes__ == ["While chunk 3 was computed."]
    assert noted(log) == [0, 1, 2, 3] and len(files(folder)) == 3
    with pytest.raises(InvalidValueError, match="unfinished job"):
        jobs.run(Walk(log), folder)
    log.unlink()
    jobs.run(Walk(log), folder, resume=True)
    assert noted(log) == [3, 4] and files(folder) == files(whole)


@pytest.mark.parametrize("damaged", [[0], [2], [4], [1, 3], [1, 2]], ids=str)
@pytest.mark.parametrize("damage", [cut, remove])
def test_a_damaged_chunk_of_a_sequel_is_computed_again(log, folder, damage, damaged):
    """From the one before it; those after it stay."""
    jobs.run(Walk(log), folder)
    expected = files(folder)
    for index in damaged:
        damage(folder / f"chunk-{index:05d}.npz")
    log.unlink()
    chunks = jobs.run(Walk(log), folder, resume=True)
    assert noted(log) == damaged and files(folder) == expected
    assert np.array_equal(chunks.columns()["x"], walked())


@pytest.mark.parametrize("arguments", [{"workers": 1}, {"scheduler": "tcp://127.0.0.1:9"}], ids=str)
def test_a_sequel_has_no_use_for_workers(log, folder, arguments):
    with pytest.raises(InvalidValueError, match="`workers` must be 0 for a job whose chunks follow one another"):
        jobs.run(Walk(log), folder, **arguments)
    assert noted(log) == [] and not folder.exists()


def test_a_chunk_of_a_sequel_alone(log):
    with pytest.raises(NotImplementedError, match="needs those before it"):
        Walk(log).compute(1)


def test_columns_of_a_sequel_must_have_an_entry_for_every_point(log):
    job = Walk(log)
    job.follow = lambda index, chunks: {"x": np.zeros(3)}
    with pytest.raises(InvalidValueError, match=r"Column 'x' of chunk 0 must have 4 entries .* but has shape \(3,\)"):
        jobs.run(job)


def stop(number, _):
    """What the command line does."""
    os.write(2, f"{jobs.interrupted()}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    with_workers = len(sys.argv) > 4
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, stop if with_workers else signal.SIG_DFL)
    job = Waves(sys.argv[2], seconds=float(sys.argv[3]))
    jobs.run(job, sys.argv[1], workers=int(sys.argv[4]) if with_workers else 0)
