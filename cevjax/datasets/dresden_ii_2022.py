"""Dresden-II reactor, germanium (arXiv:2202.09672): counts per 10 eV, 3 kg and day in ionisation energy.

Gaussian errors of 130 bins from 0.2 to 1.5 keVee, and a background of seven parameters that is fitted together with the
signal: a continuum A + B exp(-C E) of epithermal neutrons, and the L1, L2 and M peaks of electron capture in Ge71.

Statistics, which differ in the signal:

- ``default``: flux from the thermal power of the reactor, distance and fission fractions; antineutrinos that follow
  neutron capture included.
- ``2205.09484``: as there: 4.8e13 antineutrinos/cm2/s for the spectrum ``hmve`` without captures (and the other
  spectra for the same fissions), and energies that are never reconstructed below zero: 37 % (``fef``) to 45 %
  (``ybe``) more signal.

Nothing tells an electron from a nuclear recoil here: scattering on electrons counts as signal wherever an interaction
beyond the standard model acts on electrons, or as ``es`` says.
"""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr

from ..errors import ReleaseFileError, check_flag, check_name
from ..fluxes import Reactor, ReactorFluence
from ..form_factors import form_factor as make_form_factor
from ..measurement import Component, Measurement, Norm
from ..nuclear_model import NuclearModel
from ..nuclei import target
from ..parameters import Gaussian, Parameter
from ..releases import release_path
from ..response import UNQUENCHED, BinnedResponse, FlatEfficiency, GaussianResolution, TabulatedQuenching
from ..scattering import coherent_scattering, electron_scattering
from ..tables import data_dir, read_table, read_toml

NAME = "dresden-ii-2022"
CITATION = "Colaresi et al., arXiv:2202.09672, Phys. Rev. Lett. 129 (2022) 211802"
STATISTICS = ("default", "2205.09484")
QUENCHING = ("fef", "ybe")
PIVOT_KEV = 0.2
"""Where the amplitude of the falling background is counted: there its errors hardly depend on those of the slope."""


class ActivatedGermanium(Component):
    r"""Epithermal neutrons and the peaks of electron capture in Ge71.

    .. math:: A + B e^{-C(E - 0.2\,\mathrm{keV})} + h\,[g(E; E_{L1}, w) + 0.008\,g(E; E_{L2}, w)]
              + \beta\,h\,\frac{w}{w_M}\,g(E; E_M, w_M)

    averaged over each bin, with g a Gaussian of unit height; the area of the M peak is beta times that of L1.

    Args:
        edges: of the bins, keVee.
        facts: table ``background`` of the measurement.
    """

    name: str = eqx.field(static=True)
    edges: tuple[float, ...] = eqx.field(static=True)
    l2: tuple[float, float] = eqx.field(static=True)  # energy, height over that of L1
    m: tuple[float, float] = eqx.field(static=True)  # energy, width
    nominal: tuple[tuple[str, float], ...] = eqx.field(static=True)
    ratio: Gaussian = eqx.field(static=True)

    def __init__(self, edges: tuple[float, ...], facts: dict):
        self.name, self.edges = "activation", edges
        self.l2 = facts["l2_kev"], facts["l2_height"]
        self.m = facts["m_kev"], facts["m_width_kev"]
        self.nominal = tuple(facts["nominal"].items())
        self.ratio = Gaussian(facts["ml_ratio"], facts["ml_ratio_error"])

    @property
    def parameters(self):
        start, rate = dict(self.nominal), "1/(10 eV 3 kg d)"

        def free(name: str, unit: str, bounds: tuple[float, float], scale: float, description: str) -> Parameter:
            return Parameter(
                f"dresden_{name}", start[name], unit, bounds, nuisance=True, scale=scale, description=description
            )

        return (
            free("flat", rate, (-50.0, 100.0), 1.0, "constant background"),
            free("epithermal", rate, (0.0, 1000.0), 5.0, "amplitude of the background of epithermal neutrons"),
            free("decay", "1/keV", (0.2, 30.0), 0.5, "fall of the background of epithermal neutrons"),
            free("l1_height", rate, (0.0, 200.0), 1.0, "height of the L1 peak"),
            free("l1_energy", "keV", (1.2, 1.4), 0.001, "energy of the L1 peak"),
            free("l1_width", "keV", (0.03, 0.2), 0.001, "width of the L1 and L2 peaks"),
            Parameter(
                "dresden_ml_ratio", self.ratio.mean, bounds=(0.0, 1.0), constraint=self.ratio, nuisance=True,
                scale=self.ratio.sigma, description="area of the M peak over that of the L1 peak",
            ),
        )  # fmt: skip

    def __call__(self, params, interaction):
        edges = np.array(self.edges)
        flat, amplitude, decay, height, centre, width, ratio = (jnp.asarray(params[p.name]) for p in self.parameters)

        def peak(energy: Array | float, sigma: Array | float) -> Array:
            """Gaussian of unit height, averaged over the bins."""
            return sigma * np.sqrt(2 * np.pi) * jnp.diff(ndtr((edges - energy) / sigma)) / np.diff(edges)

        continuum = flat - amplitude / decay * jnp.diff(jnp.exp(-decay * (edges - PIVOT_KEV))) / np.diff(edges)
        l_peaks = peak(centre, width) + self.l2[1] * peak(self.l2[0], width)
        return continuum + height * (l_peaks + ratio * width / self.m[1] * peak(*self.m))


def load(
    statistic: str = "default",
    quenching: str = "fef",
    flux: str = "hmve",
    release: str | Path | None = None,
    form_factor: str = "helm",
    es: bool | None = None,
) -> Measurement:
    """The measurement.

    Args:
        statistic: ``default`` or ``2205.09484``.
        quenching: ``fef`` (iron-filtered neutrons) or ``ybe`` (photo-neutron source).
        flux: ``hmve``, ``hmk`` or ``efk``: see :class:`cevjax.fluxes.Reactor`.
        release: folder with the ancillary files of arXiv:2202.09672, or ``fetched``; None for the embedded tables.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``.
        es: whether scattering on electrons counts as signal; None for where it matters.

    Raises:
        UnknownNameError: no such statistic, quenching, flux or form factor.
        ReleaseFileError: a file of the release is missing or malformed.

    >>> load(quenching="ybe").shape
    (130,)
    """
    check_name("statistic", statistic, STATISTICS)
    column = 1 + QUENCHING.index(check_name("quenching", quenching, QUENCHING))
    check_flag("es", es)
    spectrum, curves = read_embedded() if release is None else read_release(release_path(NAME, release))
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    detector, beam = facts["detector"], facts["flux"]
    edges = (*map(float, spectrum[:, 0]), float(spectrum[-1, 1]))
    least_kev = 1e-3 * detector["per_pair_ev"]
    paper = statistic == "2205.09484"
    resolution = GaussianResolution(1e-3 * detector["noise_ev"], detector["fano"] * least_kev, positive=paper)
    reactor = Reactor(flux, captures=not paper)
    # the rates are per day
    settings = {"days": 1.0, "fractions": beam["fractions"], "prefix": "dresden"}
    if paper:
        fluence = ReactorFluence.of_flux(
            reactor, beam["per_cm2_s"], **settings, reference=Reactor("hmve", captures=False)
        )
    else:
        fluence = ReactorFluence.of_power(reactor, beam["power_gw"], detector["baseline_m"], **settings)
    material = target(detector["target"])

    def response(of_recoils) -> BinnedResponse:
        return BinnedResponse(of_recoils, resolution, FlatEfficiency(), edges, order=2, panel=0.1)

    common = {
        "mass_kg": detector["mass_kg"],
        "flux": reactor,
        "fluence": fluence,
        "baseline_m": detector["baseline_m"],
        "time": None,
        "norm": Norm(),
    }
    signal = coherent_scattering(
        nuclear=NuclearModel(material, make_form_factor(form_factor)),
        response=response(TabulatedQuenching(curves[:, 0], curves[:, column])),
        recoil_min_kev=least_kev / float(curves[0, column]),
        order=40,
        **common,
    )
    electrons = electron_scattering(
        target=material,
        recoil_kev=(least_kev, edges[-1] + 0.8),
        panel_kev=0.1,
        response=response(UNQUENCHED),
        always=bool(es),
        **common,
    )
    return Measurement(
        name=NAME,
        statistic=statistic,
        axes=(("E_keVee", edges),),
        observed=spectrum[:, 2],
        sigma=spectrum[:, 3],
        components=(signal, *(() if es is False else (electrons,)), ActivatedGermanium(edges, facts["background"])),
        nuisances=(),
        citation=CITATION,
        unit="counts/(3 kg d)",
    )


def read_embedded() -> tuple[np.ndarray, np.ndarray]:
    """Spectrum (E_low, E_high, rate, error) and quenching curves (recoil in keV, fef, ybe)."""
    folder = data_dir(NAME)
    spectrum = read_table(folder / "spectrum.csv", 4, "E_low, E_high, rate, error", delimiter=",")
    return spectrum, read_table(folder / "quenching.csv", 3, "recoil in keV, fef, ybe", delimiter=",")


def read_release(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same from the ancillary files as they are published.

    Raises:
        ReleaseFileError: a file is missing or malformed.
    """
    path = folder / "data_release.txt"
    table = read_table(path, 5, "energy in keVee; rate and error with the reactor on, and off")
    centre = table[:, 0]
    in_order = len(table) == 130 and np.allclose(centre, 0.205 + 0.01 * np.arange(130), atol=1e-6)
    if not in_order or np.any(table[:, 2] <= 0):
        raise ReleaseFileError(
            f"File {path}: expected 130 bins of 10 eV from 0.2 keVee on with positive errors, found {len(table)}."
        )
    edges = np.round(np.append(centre - 0.005, centre[-1] + 0.005), 6)
    spectrum = np.column_stack([edges[:-1], edges[1:], table[:, 1], table[:, 2]])
    path = folder / "QF_Fef_YBe.txt"
    curves = read_table(path, 3, "recoil energy in keV, quenching factors fef, ybe")
    inside = np.all((curves[:, 1:] > 0) & (curves[:, 1:] < 1))
    if np.any(np.diff(curves[:, 0]) <= 0) or curves[0, 0] > 0.05 or curves[-1, 0] < 2.5 or not inside:
        raise ReleaseFileError(
            f"File {path}: expected factors between 0 and 1 at recoil energies that increase from 0 to 2.5 keV."
        )
    return spectrum, curves
