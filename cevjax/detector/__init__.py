r"""A user's own detector without Python: a folder with ``measurement.toml`` and, where wanted, tables beside it.

.. code-block:: toml

    title = "A germanium detector at a reactor"        # name (else that of the folder), citation, remark
    electron_recoils = "signal"                        # or "rejected", the default: can it tell them from nuclei?

    [target]
    material = "Ge"                                    # nuclide, element, compound; or composition = {C = 3, F = 8}
    mass_kg = 3.0                                      # also: form_factor, radius_relative_error

    [flux]
    source = "reactor"                                 # or pion-decay-at-rest, table
    power_gw = 2.96                                    # or flux_per_cm2_s
    baseline_m = 10.39
    fission_fractions = {U235 = 0.58, U238 = 0.08, Pu239 = 0.29, Pu241 = 0.05}
    relative_error = 0.02                              # nuisance = "..." shares it with other measurements

    [exposure]
    days = 96.4                                        # or years

    [quenching]
    model = "lindhard"                                 # or none, constant, polynomial, table
    k = 0.157
    relative_error = 0.05

    [resolution]
    kind = "gaussian"                                  # or none, gamma
    noise_kev = 0.0685
    stochastic = 0.018                                 # sigma^2 = noise^2 + stochastic^2 E + (relative E)^2, in keV

    [efficiency]                                       # optional: flat, threshold, sigmoid, table
    kind = "flat"
    value = 0.95

    [bins]
    low = 0.2                                          # or edges = [...]; spacing = "linear", "log" or "sqrt"
    high = 1.5
    number = 26

    [[backgrounds]]
    name = "flat"
    shape = "flat"                                     # or exponential, line, table
    rate_per_kev_kg_day = 10.0                         # or events
    relative_error = 0.03

    [[nuisances]]
    name = "livetime"
    relative_error = 0.01
    on = ["cevns", "flat"]

    [counts]                                           # without it: a forecast
    file = "counts.csv"                                # counts of each bin, then their errors if they are Gaussian

Reconstructed energies are in keV of nuclear recoil without quenching (``model = "none"``), in photo-electrons with a
``gamma`` resolution, and else in keV electron equivalent. :mod:`cevjax.detector.description` describes every key; one
that is wrong, missing or unknown is an error that names it and says what was expected.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InvalidValueError, check_flag, check_name
from ..measurement import Measurement
from ..registry import dataset_names
from .building import FORECAST as FORECAST
from .building import build
from .context import FILE
from .reading import read_description as read_description


def load_folder(
    path: str | Path,
    *,
    statistic: str = "default",
    form_factor: str | None = None,
    es: bool | None = None,
    exposure_factor: float = 1.0,
) -> Measurement:
    """The measurement that a folder describes.

    Without counts it is a forecast: the data are the expectation in the standard model.

    Args:
        path: the folder that holds ``measurement.toml``, or that file.
        statistic: ``default``, the only one.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``; None for that of the file.
        es: whether scattering on electrons counts as signal; None for where it matters, if the file says that the
            detector cannot tell electron recoils.
        exposure_factor: scales signal and backgrounds of a forecast.

    Raises:
        InvalidValueError: the folder or its ``measurement.toml`` cannot be used; the message names file and keys, and
            says what was expected.
        ReleaseFileError: a table is missing or malformed; the message names file and line.

    >>> from cevjax.tables import data_dir
    >>> load_folder(data_dir("future") / "ess-csi").shape
    (19,)
    """
    folder = Path(path).expanduser()
    folder = folder.parent if folder.name == FILE else folder
    if not (folder / FILE).is_file():
        raise InvalidValueError(f"Data set {str(path)!r} must be a folder with a file {FILE}, but there is none.")
    check_name("statistic", statistic, ("default",))
    check_flag("es", es)
    try:
        factor = float(exposure_factor)
    except (TypeError, ValueError):
        factor = 0.0
    if not 0 < factor < np.inf:
        raise InvalidValueError(f"Argument `exposure_factor` must be a positive number, but was {exposure_factor!r}.")
    description = read_description(folder)
    if (description.name or folder.resolve().name) in dataset_names():
        raise InvalidValueError(f"File {folder / FILE}: key `name` must be given, and not be that of a known data set.")
    return build(description, folder, form_factor, es, factor)
