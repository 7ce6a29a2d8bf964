"""CONUS+ (arXiv:2501.05206): excess of counts with the reactor on, 19 bins of ionisation energy, per kg of germanium.

The data were digitised by a third party from a figure. One statistic, ``default`` or ``2501.17843``: Gaussian errors
and one normalisation of the signal, 16.9 %; Lindhard quenching with k = 0.162.

Scattering on electrons counts as signal wherever an interaction beyond the standard model acts on electrons, or as
``es`` says.
"""

from __future__ import annotations

from ..errors import check_flag, check_name
from ..fluxes import Reactor, ReactorFluence
from ..form_factors import form_factor as make_form_factor
from ..measurement import Measurement, normalisation
from ..nuclear_model import NuclearModel
from ..nuclei import target
from ..parameters import Parameter
from ..response import UNQUENCHED, BinnedResponse, FlatEfficiency, GaussianResolution, LindhardQuenching
from ..scattering import coherent_scattering, electron_scattering
from ..tables import data_dir, read_table, read_toml

NAME = "conus-plus-2025"
CITATION = "CONUS+, arXiv:2501.05206, Nature 643 (2025) 1229"
STATISTICS = ("default", "2501.17843")


def load(
    statistic: str = "default", flux: str = "hmk", form_factor: str = "helm", es: bool | None = None
) -> Measurement:
    """The measurement.

    Args:
        statistic: ``default`` or ``2501.17843``, which are the same.
        flux: ``hmk``, ``hmve`` or ``efk``, see :class:`cevjax.fluxes.Reactor`; 1.5e13 antineutrinos/cm2/s in all.
        form_factor: ``helm``, ``klein-nystrand``, ``fermi``.
        es: whether scattering on electrons counts as signal; None for where it matters.

    Raises:
        UnknownNameError: no such statistic, flux or form factor.

    >>> load().shape
    (19,)
    """
    check_name("statistic", statistic, STATISTICS)
    check_flag("es", es)
    folder = data_dir(NAME)
    facts = read_toml(folder / "measurement.toml")
    excess = read_table(folder / "excess.csv", 4, "E_low, E_high, excess, error", delimiter=",")
    detector, beam = facts["detector"], facts["flux"]
    edges = (*map(float, excess[:, 0]), float(excess[-1, 1]))
    least_kev = 1e-3 * detector["per_pair_ev"]
    resolution = GaussianResolution(1e-3 * detector["noise_ev"], detector["fano"] * least_kev)
    material, reactor = target(detector["target"]), Reactor(flux)
    quenching = LindhardQuenching(material.nuclei[0].Z, detector["lindhard_k"])
    nuisances: list[Parameter] = []

    def response(of_recoils) -> BinnedResponse:
        return BinnedResponse(of_recoils, resolution, FlatEfficiency(), edges, order=4, panel=0.01)

    common = {
        "mass_kg": 1.0,
        "flux": reactor,
        "fluence": ReactorFluence.of_flux(reactor, beam["per_cm2_s"], detector["days"], beam["fractions"], "conus"),
        "baseline_m": detector["baseline_m"],
        "time": None,
        "norm": normalisation(nuisances, ("conus_signal", beam["relative_error"])),
    }
    signal = coherent_scattering(
        nuclear=NuclearModel(material, make_form_factor(form_factor)),
        response=response(quenching),
        recoil_min_kev=detector["least_recoil_kev"],
        order=40,
        **common,
    )
    electrons = electron_scattering(
        target=material, recoil_kev=(least_kev, 0.6), panel_kev=0.03, response=response(UNQUENCHED), always=bool(es),
        **common,
    )  # fmt: skip
    return Measurement(
        name=NAME,
        statistic=statistic,
        axes=(("E_keVee", edges),),
        observed=excess[:, 2],
        sigma=excess[:, 3],
        components=(signal, *(() if es is False else (electrons,))),
        nuisances=tuple(nuisances),
        citation=CITATION,
        remark=facts["remark"],
        unit=f"counts/(kg {detector['days']:g} d)",
    )
