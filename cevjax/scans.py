"""What a scan leaves: a grid with chi2 and the fitted parameters at every point, in memory and as a file.

The file is netCDF (or zarr, by its ending) as xarray reads it: one coordinate for each parameter of the grid, on them
``chi2``, ``delta_chi2``, ``status`` and every fitted parameter, and as attributes where it all came from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
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
            temporary = path.with_name(f".{path.name}.part")
            shutil.rmtree(temporary, ignore_errors=True)
            self.dataset.to_zarr(temporary, mode="w")
            shutil.rmtree(path, ignore_errors=True)
            return temporary.replace(path)
        return write_atomically(path, lambda temporary: self.dataset.to_netcdf(temporary, engine="h5netcdf"))

    @classmethod
    def load(cls, path: str | Path) -> ScanResult:
        """Read what :meth:`save` wrote.

        Raises:
            InvalidValueError: no such file, or not that of a scan.
        """
        import xarray as xr

        path = Path(path)
        try:
            engine = "zarr" if path.is_dir() else "h5netcdf"
            with xr.open_dataset(path, engine=engine) as opened:
                dataset = opened.load()
        except FileNotFoundError:
            raise InvalidValueError(f"Scan file {path} does not exist.") from None
        except (OSError, ValueError, KeyError) as error:
            raise InvalidValueError(f"File {path} cannot be read as that of a scan: {error}.") from error
        if "chi2" not in dataset or not {"chi2_min", "best_fit", "facts"} <= set(dataset.attrs):
            raise InvalidValueError(f"File {path} must be that of a scan, but holds {', '.join(map(str, dataset))}.")
        return cls(dataset)


def check_format(path: str | Path) -> Path:
    """The path, if a scan can be written there.

    Raises:
        InvalidValueError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InvalidValueError(f"Output file {path} must end in {' or '.join(FORMATS)}.")
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
    import xarray as xr

    shape = tuple(len(values) for values in axes.values())
    names = lambda name: dict(zip(("long_name", "units"), labels.get(name, (name, "")), strict=True))  # noqa: E731
    grids = {name: (tuple(axes), np.asarray(column).reshape(shape), names(name)) for name, column in columns.items()}
    dataset = xr.Dataset(
        grids,
        coords={name: (name, np.asarray(values), names(name)) for name, values in axes.items()},
        attrs={"chi2_min": chi2_min, "best_fit": json.dumps(dict(best_fit)), "facts": json.dumps(dict(facts))},
    )
    dataset["delta_chi2"] = dataset["chi2"] - chi2_min
    return ScanResult(dataset)
