"""The file of a scan: what is written is read, whole or piece by piece."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cevjax import scans
from cevjax.errors import InvalidValueError
from cevjax.scans import FAILED, ScanResult, assemble, save_chunks

AXES = {"eps_ee": np.linspace(-1.0, 1.0, 7), "eps_em": np.array([-0.5, 0.0, 0.25]), "mass": np.geomspace(1, 100, 5)}
FACTS = {
    "chi2_min": 1.25,
    "best_fit": {"eps_ee": 0.1, "eps_em": 0.0, "mass": 3.0, "signal": 0.01},
    "facts": {"cevjax": "0.1.0", "datasets": ["one", "two"], "options": {"rtol": 1e-8}},
    "labels": {"eps_ee": ("ε_ee", ""), "mass": ("m", "MeV"), "chi2": ("χ²", "")},
}
SIZE = 7 * 3 * 5
FORMATS = ["scan.nc", "scan.zarr"]


def some_columns():
    rng = np.random.default_rng(1)
    columns = {"chi2": rng.exponential(10, SIZE), "status": rng.integers(0, 3, SIZE).astype(np.int8)}
    columns |= {"signal": rng.normal(size=SIZE), "background": rng.normal(size=SIZE)}
    columns["chi2"][17] = np.nan
    return columns


def pieces(columns, *ends):
    """Columns cut after the given points."""
    bounds = [0, *ends, len(columns["chi2"])]
    return [
        {name: column[a:b] for name, column in columns.items()} for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


@pytest.fixture(scope="module")
def result():
    return assemble(AXES, some_columns(), **FACTS)


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    if request.param.endswith("zarr"):
        pytest.importorskip("zarr")
    return tmp_path / request.param


def test_a_result_tells_what_it_was_made_of(result):
    columns = some_columns()
    assert list(result.axes) == ["eps_ee", "eps_em", "mass"]
    assert all(np.array_equal(result.axes[name], values) for name, values in AXES.items())
    assert np.array_equal(result.chi2.ravel(), columns["chi2"], equal_nan=True)
    assert result.chi2[3, 1, 2] == columns["chi2"][3 * 15 + 1 * 5 + 2]
    assert np.array_equal(result.delta_chi2, result.chi2 - 1.25, equal_nan=True)
    assert np.array_equal(result.delta_chi2, result.dataset["delta_chi2"].values, equal_nan=True)
    assert list(result.values) == ["signal", "background"]
    assert result.status.dtype == np.int8 and result.status.max() == FAILED
    assert result.chi2_min == 1.25 and result.best_fit == FACTS["best_fit"] and result.facts == FACTS["facts"]
    assert result.title == "one + two"
    assert [result.label(name) for name in AXES] == ["ε_ee", "eps_em", "m [MeV]"]


@pytest.mark.filterwarnings("error")
def test_what_is_saved_is_loaded(result, path):
    assert result.save(path) == path
    loaded = ScanResult.load(path)
    xr.testing.assert_identical(loaded.dataset, result.dataset)
    assert loaded.status.dtype == np.int8
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("batch", [1, 4, 16, 1000])
@pytest.mark.parametrize("ends", [(), (1, 4, 5, 20, 21, 80), tuple(range(1, SIZE))], ids=["one", "some", "all"])
def test_piece_by_piece_is_the_same(result, path, ends, batch, monkeypatch):
    monkeypatch.setattr(scans, "BATCH", batch)
    assert save_chunks(path, AXES, iter(pieces(some_columns(), *ends)), **FACTS) == path
    xr.testing.assert_identical(ScanResult.load(path).dataset, result.dataset)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    result.save(path.with_name(f"other{path.suffix}"))
    other = ScanResult.load(path.with_name(f"other{path.suffix}")).dataset
    assert list(other) == list(ScanResult.load(path).dataset)


def test_a_grid_of_one_axis(tmp_path):
    axes, columns = {"eps_ee": AXES["eps_ee"]}, {"chi2": np.arange(7.0), "status": np.zeros(7, np.int8)}
    save_chunks(tmp_path / "scan.nc", axes, pieces(columns, 3), **FACTS)
    assert list(ScanResult.load(tmp_path / "scan.nc").chi2) == [*range(7)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_blocks_make_up_a_range(shape, data):
    size = int(np.prod(shape))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    points = np.arange(size).reshape(shape)
    blocks = [points[block].ravel() for block in scans._blocks(start, stop, tuple(shape))]
    assert [*np.concatenate([np.arange(0), *blocks])] == [*range(start, stop)]
    assert all(len(block) for block in blocks) and len(blocks) <= 2 * len(shape) - 1


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4))
def test_tiles_are_about_a_batch(shape):
    tile = scans._tile(tuple(shape))
    assert all(1 <= side <= whole for side, whole in zip(tile, shape, strict=True))
    assert np.prod(tile, dtype=float) <= scans.BATCH
    assert tile == tuple(shape) or np.prod(tile, dtype=float) > scans.BATCH / 2 ** len(shape)


def test_a_scan_is_opened_without_reading_it(result, path):
    result.save(path)
    opened = ScanResult.open(path)
    assert not opened.dataset["chi2"].variable._in_memory
    assert np.array_equal(opened.dataset["chi2"][2:4].values, result.chi2[2:4])
    assert np.array_equal(opened.chi2, result.chi2, equal_nan=True)
    opened.dataset.close()


def test_a_scan_that_is_loaded_can_be_replaced(result, path):
    result.save(path)
    ScanResult.load(path).save(path)
    save_chunks(path, AXES, pieces(some_columns()), **FACTS)
    xr.testing.assert_identical(ScanResult.load(path).dataset, result.dataset)


def test_what_was_there_stays_when_writing_fails(result, path):
    def ends_early():
        yield pieces(some_columns(), 50)[0]
        raise OSError("the disk is full")

    result.save(path)
    (path.with_name(f".{path.name}.part")).mkdir()  # of a process that was killed
    with pytest.raises(OSError, match="the disk is full"):
        save_chunks(path, AXES, ends_early(), **FACTS)
    xr.testing.assert_identical(ScanResult.load(path).dataset, result.dataset)
    if path.suffix == ".zarr":
        assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("parts", [slice(1), slice(0), slice(2)], ids=["less", "nothing", "more"])
def test_chunks_must_make_up_the_grid(path, parts):
    chunks = (pieces(some_columns(), 50) * 2)[: parts.stop + (parts.stop == 2)]
    points = {0: 0, 1: 50, 2: SIZE + 50}[parts.stop]
    with pytest.raises(InvalidValueError, match=f"must have {SIZE} points in all, as the grid, but has {points}"):
        save_chunks(path, AXES, chunks, **FACTS)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scan.txt", r"scan.txt must end in .nc or .zarr"),
        ("scan", "must end in"),
        ("nowhere/scan.nc", "must be in an existing folder"),
        ("nowhere/scan.zarr", "must be in an existing folder"),
        ("folder.nc", "must be a file, but is a folder"),
    ],
)
def test_where_no_scan_can_be_written(result, tmp_path, name, message):
    (tmp_path / "folder.nc").mkdir()
    with pytest.raises(InvalidValueError, match=message):
        result.save(tmp_path / name)
    with pytest.raises(InvalidValueError, match=message):
        save_chunks(tmp_path / name, AXES, [], **FACTS)


def test_files_that_are_none_of_a_scan(tmp_path):
    with pytest.raises(InvalidValueError, match="does not exist"):
        ScanResult.load(tmp_path / "scan.nc")
    (tmp_path / "scan.nc").write_text("no netCDF")
    with pytest.raises(InvalidValueError, match="cannot be read as that of a scan"):
        ScanResult.load(tmp_path / "scan.nc")
    xr.Dataset({"a": 1, "b": 2}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(InvalidValueError, match="must be that of a scan, but holds a, b"):
        ScanResult.open(tmp_path / "other.nc")


def test_zarr_that_is_not_installed(result, tmp_path, monkeypatch):
    monkeypatch.setattr(scans, "find_spec", lambda name: None)
    (tmp_path / "there.zarr").mkdir()
    for attempt in (lambda: result.save(tmp_path / "scan.zarr"), lambda: ScanResult.load(tmp_path / "there.zarr")):
        with pytest.raises(InvalidValueError, match=r'pip install "cevjax\[zarr\]"'):
            attempt()


LARGE = """
import json, sys
import h5netcdf, xarray
import numpy as np
from cevjax import jobs, scans

rows, columns, many = 3000, 1000, 12

class Large(jobs.Job):
    sizes = (10_000,) * 300
    identity = {}
    def compute(self, index):
        x = np.arange(index * 10_000, (index + 1) * 10_000, dtype=float)
        return {"chi2": x, "status": np.zeros(10_000, np.int8), **{f"p{i}": x + i for i in range(many)}}

def peak():  # that of getrusage is not below the parent's
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

axes = {"x": np.arange(rows) / rows, "y": np.arange(columns) / columns}
before = peak()
chunks = jobs.run(Large(), sys.argv[1] + ".part")
scans.save_chunks(sys.argv[1], axes, chunks, chi2_min=0.0, best_fit={}, facts={}, labels={})
print(json.dumps([before, peak()]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scan(tmp_path):
    path = tmp_path / "scan.nc"
    run = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, check=True)
    before, after = json.loads(run.stdout)  # kB
    size = path.stat().st_size
    assert size > 330e6 and (after - before) * 1024 < 170e6  # 116 MB, and as much for a third of the points
    opened = ScanResult.open(path)
    assert opened.dataset["p11"][500, 500] == 500 * 1000 + 500 + 11
    opened.dataset.close()
