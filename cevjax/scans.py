"""What a scan leaves: a grid with chi2 and the fitted parameters at every point, in memory and as a file.

The file is netCDF (or zarr, by its ending) as xarray reads it: one coordinate for each parameter of the grid, on them
``chi2``, ``delta_chi2``, ``status`` and every fitted parameter, and as attributes where it all came from. A scan that
fits in memory is a :class:`ScanResult`; one that may not is written piece by piece, to the same file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidValueError
from .results import check_output, write_atomically

if TYPE_CHECKING:
    import xarray as xr

CONVERGED, RETRIED, FAILED = 0, 1, 2
"""Values of ``status``: converged at once; only after a second, robust attempt; not even then."""
FORMATS = (".nc", ".zarr")
NO_ZARR = 'Files that end in .zarr need the package zarr: pip install "cevjax[zarr]"'
BATCH = 1 << 18  # points that are written at once


@dataclass(frozen=True)
class ScanResult:
    """The profile likelihood on a grid.

    Attributes:
        dataset: everything, as it is in a file. ``dataset.attrs["facts"]`` holds the provenance as JSON.
    """

    dataset: xr.Dataset

    @property
    def axes(self) -> dict[str, np.ndarray]:
        """{parameter: its values on the grid}, in the order of the axes of :attr:`chi2`."""
        return {str(name): self.dataset[name].values for name in self.dataset["chi2"].dims}

    @property
    def chi2(self) -> np.ndarray:
        """Minimum over all other fitted parameters at every point; nan where the likelihood is not finite."""
        return self.dataset["chi2"].values

    @property
    def delta_chi2(self) -> np.ndarray:
        """:attr:`chi2` above :attr:`chi2_min`."""
        return self.chi2 - self.chi2_min

    @property
    def chi2_min(self) -> float:
        """The global minimum: of the fit with the parameters of the grid free, or of the grid if that is lower."""
        return float(self.dataset.attrs["chi2_min"])

    @property
    def best_fit(self) -> dict[str, float]:
        """All fitted parameters at the global minimum."""
        return json.loads(self.dataset.attrs["best_fit"])

    @property
    def values(self) -> dict[str, np.ndarray]:
        """{fitted parameter: its value at every point of the grid}."""
        rest = {"chi2", "delta_chi2", "status"}
        return {str(name): array.values for name, array in self.dataset.data_vars.items() if name not in rest}

    @property
    def status(self) -> np.ndarray:
        """:data:`CONVERGED`, :data:`RETRIED` or :data:`FAILED` at every point."""
        return self.dataset["status"].values

    @property
    def facts(self) -> dict[str, Any]:
        """Where it came from: version, data with their hashes, statistic, interaction, options, speed."""
        return json.loads(self.dataset.attrs["facts"])

    @property
    def title(self) -> str:
        """The data sets, in words."""
        return " + ".join(self.facts["datasets"])

    def label(self, name: str) -> str:
        """Symbol of a parameter of the grid with its unit, for plots."""
        attributes = self.dataset[name].attrs
        unit = f" [{attributes['units']}]" if attributes.get("units") else ""
        return (attributes.get("long_name") or name) + unit

    def save(self, path: str | Path) -> Path:
        """Write it, atomically, as netCDF or zarr by the ending of ``path``."""
        path = check_format(path)
        if path.suffix == ".zarr":
            return _replace_folder(path, lambda temporary: self.dataset.to_zarr(temporary, mode="w", zarr_format=3))
        return write_atomically(path, lambda temporary: self.dataset.to_netcdf(temporary, engine="h5netcdf"))

    @classmethod
    def load(cls, path: str | Path) -> ScanResult:
        """Read what :meth:`save` or :func:`save_chunks` wrote.

        Raises:
            InvalidValueError: no such file, or not that of a scan.
        """
        with contextlib.closing(cls.open(path).dataset) as dataset:
            return cls(dataset.load())

    @classmethod
    def open(cls, path: str | Path) -> ScanResult:
        """As :meth:`load`, but every array is read when it is asked for: for scans that do not fit in memory.

        The file stays open until ``dataset.close()``. A part of an array is had by ``dataset["chi2"][:10].values``.

        Raises:
            InvalidValueError: no such file, or not that of a scan.
        """
        import xarray as xr

        path = Path(path)
        if path.is_dir() and find_spec("zarr") is None:
            raise InvalidValueError(NO_ZARR)
        try:
            dataset = xr.open_dataset(path, engine="zarr" if path.is_dir() else "h5netcdf")
        except FileNotFoundError:
            raise InvalidValueError(f"Scan file {path} does not exist.") from None
        except (OSError, ValueError, KeyError) as error:
            raise InvalidValueError(f"File {path} cannot be read as that of a scan: {error}.") from error
        if "chi2" not in dataset or not {"chi2_min", "best_fit", "facts"} <= set(dataset.attrs):
            dataset.close()
            raise InvalidValueError(f"File {path} must be that of a scan, but holds {', '.join(map(str, dataset))}.")
        return cls(dataset)


def check_format(path: str | Path) -> Path:
    """The path, if a scan can be written there.

    Raises:
        InvalidValueError: another ending, a folder that does not exist, or zarr without the package for it.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InvalidValueError(f"Output file {path} must end in {' or '.join(FORMATS)}.")
    if path.suffix == ".zarr" and find_spec("zarr") is None:
        raise InvalidValueError(NO_ZARR)
    return path if path.suffix == ".zarr" and path.is_dir() else check_output(path)


def assemble(
    axes: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    *,
    chi2_min: float,
    best_fit: Mapping[str, float],
    facts: Mapping[str, Any],
    labels: Mapping[str, tuple[str, str]],
) -> ScanResult:
    """A result from columns with one entry a point, the last axis of the grid running fastest.

    Args:
        axes: {parameter: values}.
        columns: ``chi2``, ``status`` and fitted parameters.
        chi2_min, best_fit: of the global minimum.
        facts: provenance.
        labels: {parameter: (symbol, unit)}.
    """
    shape = tuple(len(values) for values in axes.values())
    dataset = _frame(axes, chi2_min, best_fit, facts, labels)
    for name, column in _complete(columns, chi2_min).items():
        dataset[name] = (tuple(axes), np.asarray(column).reshape(shape), _names(labels, name))
    return ScanResult(dataset)


def _frame(
    axes: Mapping[str, np.ndarray],
    chi2_min: float,
    best_fit: Mapping[str, float],
    facts: Mapping[str, Any],
    labels: Mapping[str, tuple[str, str]],
) -> xr.Dataset:
    """All of a scan but the results at its points."""
    import xarray as xr

    return xr.Dataset(
        coords={name: (name, np.asarray(values), _names(labels, name)) for name, values in axes.items()},
        attrs={"chi2_min": chi2_min, "best_fit": json.dumps(dict(best_fit)), "facts": json.dumps(dict(facts))},
    )


def _names(labels: Mapping[str, tuple[str, str]], name: str) -> dict[str, str]:
    """Attributes of an array."""
    return dict(zip(("long_name", "units"), labels.get(name, (name, "")), strict=True))


def _complete(columns: Mapping[str, np.ndarray], chi2_min: float) -> dict[str, np.ndarray]:
    """Columns with that which follows from them."""
    return {**columns, "delta_chi2": np.asarray(columns["chi2"]) - chi2_min}


# ------------------------------------------------------------------------------------------------------ piece by piece


def save_chunks(
    path: str | Path,
    axes: Mapping[str, np.ndarray],
    chunks: Iterable[Mapping[str, np.ndarray]],
    *,
    chi2_min: float,
    best_fit: Mapping[str, float],
    facts: Mapping[str, Any],
    labels: Mapping[str, tuple[str, str]],
) -> Path:
    """Write what ``assemble(...).save(path)`` would, atomically and without ever holding more than a part of it.

    Args:
        path: netCDF or zarr by its ending.
        axes: {parameter: values}.
        chunks: columns as those of :func:`assemble`, for one piece of the grid after the other.
        chi2_min, best_fit: of the global minimum.
        facts: provenance.
        labels: {parameter: (symbol, unit)}.

    Raises:
        InvalidValueError: nothing can be written there, or the chunks do not make up the grid.

    Example:
        >>> axes = {"x": np.array([0.0, 1.0]), "y": np.array([0.0, 1.0, 2.0])}
        >>> chunks = ({"chi2": np.full(2, i), "status": np.zeros(2, np.int8)} for i in (4.0, 5.0, 6.0))
        >>> facts = dict(chi2_min=3.0, best_fit={"x": 0.5, "y": 0.0}, facts={}, labels={})
        >>> path = save_chunks(getfixture("tmp_path") / "scan.nc", axes, chunks, **facts)
        >>> ScanResult.load(path).delta_chi2
        array([[1., 1., 2.],
               [2., 3., 3.]])
    """
    path = check_format(path)
    frame = _frame(axes, chi2_min, best_fit, facts, labels)
    shape = tuple(len(values) for values in axes.values())
    pieces = (_complete(piece, chi2_min) for piece in _batches(chunks, BATCH))

    def write_netcdf(temporary: Path) -> None:
        import h5netcdf

        def create(name: str, dtype: np.dtype) -> Any:
            # as xarray does: whatever is a number may be missing
            fill = np.array(np.nan, dtype) if dtype.kind == "f" else None
            array = file.create_variable(name, tuple(axes), dtype, fillvalue=fill)
            array.attrs.update(_names(labels, name))
            return array

        frame.to_netcdf(temporary, engine="h5netcdf")
        with h5netcdf.File(temporary, "r+") as file:
            _fill(create, pieces, shape)
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())  # before those who made the chunks remove them

    def write_zarr(temporary: Path) -> None:
        import zarr

        def create(name: str, dtype: np.dtype) -> Any:
            fill = np.nan if dtype.kind == "f" else 0
            options: dict[str, Any] = {"dimension_names": tuple(axes), "attributes": _names(labels, name)}
            return group.create_array(name, shape=shape, dtype=dtype, chunks=_tile(shape), fill_value=fill, **options)

        frame.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False)
        group = zarr.open_group(temporary, mode="r+", use_consolidated=False)
        _fill(create, pieces, shape)
        zarr.consolidate_metadata(temporary)

    if path.suffix == ".zarr":
        return _replace_folder(path, write_zarr)
    return write_atomically(path, write_netcdf)


def _fill(
    create: Callable[[str, np.dtype], Any], pieces: Iterable[Mapping[str, np.ndarray]], shape: tuple[int, ...]
) -> None:
    """Write pieces of a grid, one after the other, into arrays that are made when the first piece tells their types.

    Raises:
        InvalidValueError: the pieces are less or more than the grid.
    """
    arrays, start, total = {}, 0, math.prod(shape)
    for piece in pieces:
        arrays = arrays or {name: create(name, column.dtype) for name, column in piece.items()}
        stop = start + len(piece["chi2"])
        if stop <= total:
            for name, column in piece.items():
                done = 0
                for block in _blocks(start, stop, shape):
                    sizes = [side.stop - side.start for side in block]
                    arrays[name][block] = column[done : done + math.prod(sizes)].reshape(sizes)
                    done += math.prod(sizes)
        start = stop
    if start != total:
        raise InvalidValueError(f"Argument `chunks` must have {total} points in all, as the grid, but has {start}.")


def _batches(chunks: Iterable[Mapping[str, np.ndarray]], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Chunks joined until they have at least ``size`` points: to write a few is as slow as to write many.

    Example:
        >>> list(_batches([{"x": np.arange(2)}, {"x": np.arange(2)}, {"x": np.arange(1)}], 3))
        [{'x': array([0, 1, 0, 1])}, {'x': array([0])}]
    """
    batch, points = list[Mapping[str, np.ndarray]](), 0
    join = lambda: {name: np.concatenate([chunk[name] for chunk in batch]) for name in batch[0]}  # noqa: E731
    for chunk in chunks:
        batch.append(chunk)
        points += len(next(iter(chunk.values())))
        if points >= size:
            yield join()
            batch, points = [], 0
    if batch:
        yield join()


def _blocks(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The blocks of a grid, one slice for each axis, that a range of its points is made of, in order.

    Example:
        >>> for block in _blocks(1, 8, (3, 3)):
        ...     print(block)
        (slice(0, 1, None), slice(1, 3, None))
        (slice(1, 2, None), slice(0, 3, None))
        (slice(2, 3, None), slice(0, 2, None))
    """
    inner = math.prod(shape[1:])
    while start < stop:
        row, begin = divmod(start, inner)
        if begin == 0 and stop - start >= inner:
            rows = (stop - start) // inner
            yield (slice(row, row + rows), *(slice(0, size) for size in shape[1:]))
            start += rows * inner
        else:
            end = min(inner, begin + stop - start)
            yield from ((slice(row, row + 1), *block) for block in _blocks(begin, end, shape[1:]))
            start += end - begin


def _tile(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the pieces that zarr keeps as files: about a batch, along the order of the points.

    Example:
        >>> _tile((3000, 1000)), _tile((2, 5 * BATCH))
        ((262, 1000), (1, 262144))
    """
    sizes, points = [], BATCH
    for size in reversed(shape):
        sizes.append(max(1, min(size, points)))
        points //= sizes[-1]
    return tuple(reversed(sizes))


def _replace_folder(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary folder beside ``path`` and move it there once it is complete."""
    temporary, old = (path.with_name(f".{path.name}.{ending}") for ending in ("part", "old"))
    for left in (temporary, old):  # by a process that was ended
        shutil.rmtree(left, ignore_errors=True)
    try:
        with warnings.catch_warnings():
            # that xarray expects all metadata in one place is not in the standard of zarr
            warnings.filterwarnings("ignore", "Consolidated metadata")
            write(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return path
