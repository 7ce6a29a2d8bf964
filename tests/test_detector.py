"""A user's own detector: the forecasts that are shipped, independent quadratures, and every kind of wrong input."""

import math
import tomllib
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import exponnorm, gamma

import cevjax
from cevjax.constants import G_F, HBARC, M_MUON, MEV2_TO_CM2, TAU_MUON, TAU_PION
from cevjax.couplings import couplings
from cevjax.detector import FORECAST, load_folder
from cevjax.errors import InvalidValueError, ParameterClashError, ReleaseFileError, UnknownNameError
from cevjax.fluxes import Reactor, ReactorFluence
from cevjax.fluxes.pion_decay_at_rest import NU_MU_ENERGY
from cevjax.form_factors import Helm
from cevjax.measurement import Norm
from cevjax.nuclear_model import NuclearModel
from cevjax.nuclei import target
from cevjax.registry import forecast_names
from cevjax.response import BinnedResponse, FlatEfficiency, GaussianResolution, LindhardQuenching
from cevjax.scattering import coherent_scattering

PUBLISHED = {"ess-csi": 8405, "ess-si": 80, "ess-xe": 7770, "ess-ge": 1610, "ess-ar": 1380, "ess-c3f8": 515}
"""Events a year, arXiv:1911.00762."""


forecast = cache(cevjax.load)


def expected(measurement, **values):
    like = cevjax.Likelihood(measurement, cevjax.StandardModel())
    (counts,) = like.expected(like.nominal(**values)).values()
    return {name: np.asarray(part) for name, part in counts.items()}


# ---------------------------------------------------------------------------------------------- independent quadratures


def helm(q, R):
    x = q / HBARC * math.sqrt(5 / 3 * (R**2 - 3 * 0.9**2))
    return 3 * (math.sin(x) - x * math.cos(x)) / x**3 * math.exp(-((q / HBARC * 0.9) ** 2) / 2)


def spectrum(material, mass_kg, T, recorded=(1.0, 1.0)):
    """Recoils per MeV for one neutrino of each flavour through 1 cm^2: pion decay at rest, in closed form.

    Of the prompt and of the delayed neutrinos, the fractions ``recorded`` count.
    """
    total, end, m, g = 0.0, M_MUON / 2, M_MUON, couplings("2023")
    for nucleus, atoms in zip(target(material).nuclei, target(material).atoms(mass_kg), strict=True):
        M = nucleus.mass
        low = (T + math.sqrt(T * T + 2 * M * T)) / 2
        q = math.sqrt(2 * M * T)
        protons, neutrons = nucleus.Z * helm(q, nucleus.R_p), nucleus.N * helm(q, nucleus.R_n)
        charge2 = [(float(g.proton[k]) * protons + float(g.neutron) * neutrons) ** 2 for k in (0, 1)]

        def nu_e(E, M=M):
            return 192 / m**3 * (E**3 / 6 - E**4 / (4 * m) - M * T / 2 * (E / 2 - E**2 / (2 * m)))

        def nubar_mu(E, M=M):
            return 64 / m**3 * (E**3 / 4 - E**4 / (4 * m) - M * T / 2 * (3 / 4 * E - E**2 / (2 * m)))

        rate = 0.0
        if low < end:
            delayed = charge2[0] * (nu_e(end) - nu_e(low)) + charge2[1] * (nubar_mu(end) - nubar_mu(low))
            rate += recorded[1] * delayed
        if low < NU_MU_ENERGY:
            rate += recorded[0] * charge2[1] * (1 - M * T / (2 * NU_MU_ENERGY**2))
        total += atoms * G_F**2 * M / math.pi * MEV2_TO_CM2 * rate
    return total


def recorded_in(time):
    """Fractions of the prompt and the delayed neutrinos in the window of a pulsed source."""
    window, mean, sigma = (
        np.array([time["edges_us"][0], time["edges_us"][-1]]),
        time["pulse_mean_us"],
        time["pulse_sigma_us"],
    )
    pion, muon = (np.diff(exponnorm.cdf(window, tau / sigma, mean, sigma))[0] for tau in (TAU_PION, TAU_MUON))
    return pion, (TAU_MUON * muon - TAU_PION * pion) / (TAU_MUON - TAU_PION)


def integral(material, mass_kg, weight, kinks=(), recorded=(1.0, 1.0)):
    """Of spectrum times weight(T in keV), in pieces between the end points and other kinks (keV)."""
    ends = {2 * E**2 / (n.mass + 2 * E) for n in target(material).nuclei for E in (NU_MU_ENERGY, M_MUON / 2)}
    edges = [0.0, *sorted({*ends, *(1e-3 * k for k in kinks if 0 < 1e-3 * k < max(ends))})]
    return sum(
        quad(
            lambda T: spectrum(material, mass_kg, T, recorded) * weight(1e3 * T), a, b, epsrel=1e-6, epsabs=0, limit=200
        )[0]
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )


def facts(name):
    return tomllib.loads((Path(cevjax.tables.data_dir("future")) / name / "measurement.toml").read_text())


def neutrinos(flux):
    made = flux.get("neutrinos_per_year") or flux["protons_on_target"] * flux["neutrinos_per_proton"]
    return made / (4 * math.pi * (100 * flux["baseline_m"]) ** 2)


def electron_equivalent(name, quenching, T):
    """keVee at keV of recoil, as in the files of the forecasts."""
    if quenching["model"] == "constant":
        return quenching["factor"] * T
    if quenching["model"] == "polynomial":
        return sum(c * T * (1e-3 * T) ** i for i, c in enumerate(quenching["coefficients"]))
    if quenching["model"] == "table":
        path = Path(cevjax.tables.data_dir("future")) / name / quenching["file"]
        return T * np.interp(T, *np.loadtxt(path, delimiter=",").T)
    return T


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_ess_sees_as_many_events_as_published(name):
    total = expected(forecast(name))["cevns"].sum()
    assert total == pytest.approx(PUBLISHED[name], rel=0.15)
    assert total == pytest.approx(PUBLISHED[name], rel=0.11 if name == "ess-c3f8" else 0.04)


@pytest.mark.parametrize("name", forecast_names())
def test_forecasts_agree_with_scipy(name):
    """All bins together, and the first of them alone, where a resolution is worst."""
    given, measurement = facts(name), forecast(name)
    counts = expected(measurement)["cevns"]
    counts = counts.sum(axis=1) if counts.ndim > 1 else counts
    resolution, edges = given["resolution"], measurement.axes[0][1]

    def above(edge, T):
        """Fraction of recoils that are reconstructed above an edge."""
        E = electron_equivalent(name, given["quenching"], T)
        if resolution["kind"] == "gamma":
            shape = 1 + resolution["light_yield_pe_per_kev"] * E
            return gamma.sf(edge, shape, scale=resolution["light_yield_pe_per_kev"] * E / shape)
        return ndtr((E - edge) / (resolution["stochastic"] * math.sqrt(E)))

    place = (given["target"]["material"], given["target"]["mass_kg"])
    through, recorded = neutrinos(given["flux"]), recorded_in(given["time"]) if "time" in given else (1.0, 1.0)
    recoils = np.geomspace(0.01, 400, 2000)
    energies = np.array([electron_equivalent(name, given["quenching"], T) for T in recoils])
    for low, high, ours in ((edges[0], edges[-1], counts.sum()), (edges[0], edges[1], counts[0])):
        weight = lambda T, low=low, high=high: above(low, T) - above(high, T)  # noqa: E731
        unit = resolution.get("light_yield_pe_per_kev", 1.0)
        near = [
            np.interp(edge / unit, energies, recoils) * f for edge in (low, high) for f in (0.5, 0.8, 1.0, 1.2, 2.0)
        ]
        near += [0.16, 0.32, 0.64, 1.25, 2.5, 5, 10, 20] if name == "ess-si" else []  # the knots of its quenching
        assert ours == pytest.approx(through * integral(*place, weight, near, recorded), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- own folders

GERMANIUM = """
title = "germanium at a reactor"

[target]
material = "Ge"
mass_kg = 2.924

[flux]
source = "reactor"
power_gw = 2.96
baseline_m = 10.39
fission_fractions = {U235 = 0.58, U238 = 0.08, Pu239 = 0.29, Pu241 = 0.05}
relative_error = 0.02

[exposure]
days = 96.4

[quenching]
model = "lindhard"
k = 0.157
relative_error = 0.05

[resolution]
kind = "gaussian"
noise_kev = 0.0685
stochastic = 0.018

[efficiency]
kind = "flat"
value = 0.9

[bins]
low = 0.2
high = 0.6
number = 8

[[backgrounds]]
name = "flat"
shape = "flat"
rate_per_kev_kg_day = 10.0
relative_error = 0.03

[[backgrounds]]
name = "rise"
shape = "exponential"
scale_kev = 0.1
events = 500.0

[[backgrounds]]
name = "line"
shape = "line"
energy_kev = 0.4
sigma_kev = 0.07
events = 30.0

[[nuisances]]
name = "livetime"
relative_error = 0.01
on = ["cevns", "flat"]
"""
SPALLATION = """
[target]
material = "CsI"
mass_kg = 14.6

[flux]
source = "pion-decay-at-rest"
protons_on_target = 3.198e23
neutrinos_per_proton = 0.0848
baseline_m = 19.3

[quenching]
model = "none"

[resolution]
kind = "none"

[bins]
edges = [2.0, 5.0, 10.0, 60.0]
"""


@pytest.fixture
def folder(tmp_path):
    """Make a folder: ``folder(text, (old, new), ..., **{"counts.csv": text})``."""

    def make(text=GERMANIUM, *changes, extra="", **tables):
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        place = tmp_path / "my-detector"
        place.mkdir(exist_ok=True)
        (place / "measurement.toml").write_text(text + extra)
        for name, content in tables.items():
            (place / f"{name}.csv").write_text(content)
        return place

    return make


def test_a_reactor_folder_equals_the_measurement_by_hand(folder):
    measurement = load_folder(folder())
    flux, edges = Reactor("hmve"), tuple(np.linspace(0.2, 0.6, 9))
    fractions = {"U235": 0.58, "U238": 0.08, "Pu239": 0.29, "Pu241": 0.05}
    by_hand = coherent_scattering(
        nuclear=NuclearModel(target("Ge"), Helm()),
        mass_kg=2.924,
        flux=flux,
        fluence=ReactorFluence.of_power(flux, 2.96, 10.39, 96.4, fractions, "my_detector"),
        baseline_m=10.39,
        response=BinnedResponse(
            LindhardQuenching(32, 0.157),
            GaussianResolution(0.0685, 0.018**2),
            FlatEfficiency(value=0.9),
            edges,
            8,
            0.01,
        ),
        time=None,
        norm=Norm(),
        order=200,
    )
    like = cevjax.Likelihood(measurement, cevjax.StandardModel())
    other = jax.jit(lambda p: by_hand(p, cevjax.StandardModel()))(like.nominal())
    found = expected(measurement)
    np.testing.assert_allclose(found["cevns"], other, rtol=1e-4)
    np.testing.assert_allclose(found["flat"], 10 * 2.924 * 96.4 * np.diff(edges))
    rise = np.exp(-np.array(edges) / 0.1)
    np.testing.assert_allclose(found["rise"], 500 * np.diff(rise) / (rise[-1] - rise[0]))
    np.testing.assert_allclose(found["line"], 30 * np.diff(ndtr((np.array(edges) - 0.4) / 0.07)))
    assert measurement.remark == FORECAST and measurement.name == "my-detector"
    assert measurement.axes == (("E_keVee", pytest.approx(edges)),)
    np.testing.assert_allclose(measurement.observed, sum(found.values()), rtol=1e-12)


def test_the_nuisances_act_where_they_belong(folder):
    measurement = load_folder(folder())
    names = {"my_detector_flux", "my_detector_quenching", "my_detector_flat", "my_detector_livetime"}
    assert {p.name for p in measurement.nuisances} == names
    nominal = expected(measurement)

    def ratio(**values):
        return {name: part / nominal[name] for name, part in expected(measurement, **values).items()}

    moved = ratio(my_detector_livetime=2.0)
    np.testing.assert_allclose(moved["cevns"], 1.02)
    np.testing.assert_allclose(moved["flat"], 1.02)
    np.testing.assert_allclose(moved["rise"], 1.0)
    np.testing.assert_allclose(ratio(my_detector_flux=-1.0)["cevns"], 0.98)
    np.testing.assert_allclose(ratio(my_detector_flat=1.0)["flat"], 1.03)
    stronger = expected(load_folder(folder(GERMANIUM, ("k = 0.157", f"k = {0.157 * 1.05}"))))
    np.testing.assert_allclose(expected(measurement, my_detector_quenching=1.0)["cevns"], stronger["cevns"], rtol=1e-5)


def test_without_resolution_bins_are_steps(folder):
    found = expected(load_folder(folder(SPALLATION)))["cevns"]
    through = 3.198e23 * 0.0848 / (4 * math.pi * 1930.0**2)
    edges = (2.0, 5.0, 10.0, 60.0)
    for low, high, ours in zip(edges[:-1], edges[1:], found, strict=True):
        other = integral("CsI", 14.6, lambda T, a=low, b=high: float(a <= T < b), (low, high))
        assert ours == pytest.approx(through * other, rel=1e-6)
    quenched = (
        ('model = "none"', 'model = "constant"\nfactor = 0.1'),
        ("[2.0, 5.0, 10.0, 60.0]", "[0.2, 0.5, 1.0, 6.0]"),
    )
    np.testing.assert_allclose(expected(load_folder(folder(SPALLATION, *quenched)))["cevns"], found, rtol=1e-10)
    # a threshold is one more step
    threshold = '\n[efficiency]\nkind = "threshold"\nat = 5.0\nvalue = 0.5\n'
    cut = expected(load_folder(folder(SPALLATION, extra=threshold)))["cevns"]
    np.testing.assert_allclose(cut, found * [0, 0.5, 0.5], rtol=1e-6, atol=1e-6)
    fine = (('kind = "none"', 'kind = "gaussian"\nnoise_kev = 0.02'),)
    sharp = expected(load_folder(folder(SPALLATION, *fine)))["cevns"]
    np.testing.assert_allclose(sharp, found, rtol=1e-4)


def test_a_flux_from_tables(folder):
    """One flat spectrum of nubar_e, against SciPy."""
    changes = (
        ('source = "pion-decay-at-rest"', 'source = "table"'),
        ("protons_on_target = 3.198e23\nneutrinos_per_proton = 0.0848", 'spectra = {nubar_e = "flux.csv"}'),
        ("[quenching]", "[exposure]\ndays = 10.0\n[quenching]"),
        ("[2.0, 5.0, 10.0, 60.0]", "[0.01, 0.1, 1.0]"),
    )
    measurement = load_folder(folder(SPALLATION, *changes, flux="# E, flux\n1,1e6\n10,1e6\n30,1e6\n"))
    total = 0.0
    for nucleus, atoms in zip(target("CsI").nuclei, target("CsI").atoms(14.6), strict=True):
        g, M = couplings("2023"), nucleus.mass

        def recoils(T, M=M, g=g, nucleus=nucleus):
            low = max((T + math.sqrt(T * T + 2 * M * T)) / 2, 1.0)
            flux = 1e6 * ((30 - low) - M * T / 2 * (1 / low - 1 / 30))
            q = math.sqrt(2 * M * T)
            protons, neutrons = nucleus.Z * helm(q, nucleus.R_p), nucleus.N * helm(q, nucleus.R_n)
            return flux * (float(g.proton[0]) * protons + float(g.neutron) * neutrons) ** 2 * M

        value = quad(recoils, 1e-5, 1e-3, epsrel=1e-8)[0]
        total += atoms * value * G_F**2 / math.pi * MEV2_TO_CM2 * 10 * 86400
    assert expected(measurement)["cevns"].sum() == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_the_csi_measurement_as_a_folder(folder):
    """The data set of 2021, written down: polynomial quenching, photo-electrons, sigmoid, arrival times, nuisances."""
    original = tomllib.loads((Path(cevjax.tables.data_dir("coherent-csi-2021")) / "measurement.toml").read_text())
    quenching, efficiency, resolution = original["quenching"], original["efficiency"], original["resolution"]
    text = f"""
name = "csi2021"
electron_recoils = "signal"
[target]
material = "CsI"
mass_kg = 14.6
radius_relative_error = 0.05
[flux]
source = "pion-decay-at-rest"
protons_on_target = 3.198e23
neutrinos_per_proton = 0.0848
baseline_m = 19.3
relative_error = 0.1
nuisance = "sns_flux"
[quenching]
model = "polynomial"
coefficients = {quenching["coefficients"]}
variations = {quenching["variations"]}
[resolution]
kind = "gamma"
light_yield_pe_per_kev = {1 / resolution["alpha"]}
beta_per_kev = {resolution["beta"]}
[efficiency]
kind = "sigmoid"
coefficients = {efficiency["nominal"]}
plus = {efficiency["plus"]}
minus = {efficiency["minus"]}
[bins]
edges = [0, 8, 12, 16, 20, 24, 32, 40, 50, 60]
[time]
edges_us = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 2, 4, 6]
pulse_mean_us = {original["flux"]["pulse_mean_us"]}
pulse_sigma_us = {original["flux"]["pulse_sigma_us"]}
offset_error_us = 0.25
loss_per_us = {efficiency["time_rate"]}
loss_start_us = {efficiency["time_start"]}
"""
    by_hand, written = cevjax.load("coherent-csi-2021", es=True), load_folder(folder(text), es=True)
    theirs = {"csi2021_qf0": 0.7, "csi2021_qf1": -0.5, "csi2021_radius": 1.0}
    ours = {"csi2021_quenching_0": 0.7, "csi2021_quenching_1": -0.5, "csi2021_radius": 1.0}
    common = {"csi2021_efficiency": 0.6, "csi2021_timing": 0.3, "sns_flux": 0.2}
    for first, second in (({}, {}), (theirs | common, ours | common)):
        a, b = expected(by_hand, **first), expected(written, **second)
        np.testing.assert_allclose(b["cevns"], a["cevns"], rtol=2e-4, atol=1e-4)
        np.testing.assert_allclose(b["es"], a["es"], rtol=2e-3, atol=1e-9)


@pytest.mark.slow
def test_scattering_on_electrons(folder):
    """Counted where it matters, or always, or never; unquenched, so that a detector sees their own spectrum."""
    detector = ('kind = "none"', 'kind = "gaussian"\nnoise_kev = 0.3'), ('"none"', '"constant"\nfactor = 0.1')
    text = (SPALLATION, *detector, ("[target]", 'electron_recoils = "signal"\n[target]'))
    where_it_matters = load_folder(folder(*text))
    assert set(expected(where_it_matters)) == {"cevns"}
    moment = cevjax.Likelihood(where_it_matters, cevjax.StandardModel() + cevjax.MagneticMoment())
    assert "es" in moment.expected(moment.nominal())["my-detector"]
    always = expected(load_folder(folder(*text), es=True))["es"]
    np.testing.assert_array_equal(expected(load_folder(folder(SPALLATION, *detector), es=True))["es"], always)
    assert "es" not in [c.name for c in load_folder(folder(*text), es=False).components]
    sharp = expected(load_folder(folder(SPALLATION, detector[1]), es=True))["es"]
    blurred = (SPALLATION, ('kind = "none"', 'kind = "gaussian"\nnoise_kev = 0.02'), detector[1])
    np.testing.assert_allclose(expected(load_folder(folder(*blurred), es=True))["es"], sharp, rtol=1e-4)
    np.testing.assert_allclose(always, sharp, rtol=0.06)


def test_electrons_that_cannot_be_counted(folder):
    """Elements without known shells, and energies of nuclear recoils."""
    unknown = ('"none"', '"constant"\nfactor = 0.1'), ('"CsI"', '"C3F8"')
    with pytest.raises(InvalidValueError, match=r"of my-detector cannot be counted.*'C'.*electron_recoils"):
        load_folder(folder(SPALLATION, *unknown), es=True)
    with pytest.raises(InvalidValueError, match=r"of ess-ar cannot be counted where energies are those of nuc"):
        cevjax.load("ess-ar", es=True)
    signal = ("[target]", 'electron_recoils = "signal"\n[target]')
    with pytest.raises(InvalidValueError, match="`electron_recoils` must be 'rejected' where energies"):
        load_folder(folder(SPALLATION, signal))


def test_own_nuisances_are_nobody_elses(folder, tmp_path):
    """Names that only differ in what a parameter's name cannot hold clash; shared ones are common."""
    first, second = (
        load_folder(folder(GERMANIUM, ("[target]", f'name = "{n}"\n[target]'))) for n in ("det-a", "det_a")
    )
    with pytest.raises(ParameterClashError, match="det_a_flux.*measurement det-a and by measurement det_a.*private"):
        cevjax.Likelihood([first, second], cevjax.StandardModel())
    shared = ('name = "livetime"', 'name = "livetime"\nshared = true')
    both = [load_folder(folder(GERMANIUM, shared, ("[target]", f'name = "{n}"\n[target]'))) for n in ("one", "two")]
    like = cevjax.Likelihood(both, cevjax.StandardModel())
    assert {n for n in like.nuisances if "livetime" in n} == {"livetime"} and "one_flux" in like.nuisances


def test_byte_order_marks_are_no_problem(folder):
    marked = folder()
    path = marked / "measurement.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_folder(path).name == "my-detector"


def test_counts_make_it_poisson_or_gaussian(folder):
    counted = '\n[counts]\nfile = "counts.csv"\n'
    numbers = "\n".join(map(str, range(100, 108)))
    poisson = load_folder(folder(extra=counted, counts=numbers))
    assert poisson.sigma is None and poisson.remark == ""
    np.testing.assert_array_equal(poisson.observed, range(100, 108))
    gaussian = load_folder(folder(extra=counted, counts="\n".join(f"{n - 103}, 2.5" for n in range(100, 108))))
    np.testing.assert_array_equal(gaussian.sigma, 2.5)
    like = cevjax.Likelihood(gaussian, cevjax.StandardModel())
    total = sum(expected(gaussian).values())
    assert float(like.chi2(like.nominal())) == pytest.approx(np.sum((total - np.arange(-3, 5)) ** 2) / 2.5**2)
    with pytest.raises(InvalidValueError, match=r"`exposure_factor` is for forecasts"):
        load_folder(folder(extra=counted, counts=numbers), exposure_factor=2.0)


def test_counts_in_energy_and_time(folder):
    times = "\n[time]\nedges_us = [0.0, 1.0, 6.0]\npulse_mean_us = 0.4\npulse_sigma_us = 0.1\n"
    tables = """
[counts]
file = "counts.csv"
[[backgrounds]]
name = "steady"
shape = "flat"
events = 58
[[backgrounds]]
name = "neutrons"
shape = "flat"
time = "pulse"
events = 58
[[backgrounds]]
name = "simulated"
shape = "table"
file = "simulated.csv"
"""
    text = folder(SPALLATION, extra=times + tables, counts="1,2\n3,4\n5,6\n", simulated="1,0\n2,0\n3,4\n")
    measurement = load_folder(text)
    np.testing.assert_array_equal(measurement.observed, [[1, 2], [3, 4], [5, 6]])
    found = expected(measurement)
    np.testing.assert_allclose(found["steady"], np.outer([3, 5, 50], [1 / 6, 5 / 6]))
    np.testing.assert_allclose(found["neutrons"], np.outer([3, 5, 50], [1, 0]), atol=1e-2)
    np.testing.assert_allclose(found["simulated"], [[1, 0], [2, 0], [3, 4]])
    assert found["cevns"].sum() == pytest.approx(expected(load_folder(folder(SPALLATION)))["cevns"].sum(), rel=0.1)
    gaussian = load_folder(folder(SPALLATION, extra=times + tables, counts="1,2,1,1\n3,4,1,1\n5,6,1,7\n"))
    np.testing.assert_array_equal(gaussian.sigma, [[1, 1], [1, 1], [1, 7]])


def test_more_exposure_means_more_of_everything(folder):
    once, thrice = expected(load_folder(folder())), expected(load_folder(folder(), exposure_factor=3.0))
    for name, counts in once.items():
        np.testing.assert_allclose(thrice[name], 3 * counts, rtol=1e-12)
    once, thrice = (expected(cevjax.load("coh-ar-750", exposure_factor=f)) for f in (1.0, "3"))
    for name, counts in once.items():
        np.testing.assert_allclose(thrice[name], 3 * counts, rtol=1e-12)


def test_a_forecast_is_fitted_at_its_nominal_point(folder):
    text = folder(SPALLATION, ("[quenching]", "relative_error = 0.1\n[quenching]"))
    like = cevjax.Likelihood(load_folder(text), cevjax.StandardModel())
    assert float(like.chi2(like.nominal())) == pytest.approx(0, abs=1e-10)
    result = cevjax.fit(like, free=("sin2_theta_w",))
    assert result.converged and result.chi2_min == pytest.approx(0, abs=1e-6)
    assert result.values["sin2_theta_w"] == pytest.approx(like.nominal()["sin2_theta_w"], abs=1e-5)


def test_the_flux_of_a_source_is_shared():
    """The coming detectors of COHERENT pull on the flux of its data; those at the ESS on another."""
    names = ("cryocsi-1", "ess-ar")
    like = cevjax.Likelihood([cevjax.load("coherent-csi-2021"), *map(forecast, names)], cevjax.StandardModel())
    assert {"sns_flux", "ess_flux"} <= set(like.nuisances)


def test_the_form_factor_is_a_choice(folder):
    helm_, fermi = expected(forecast("ess-xe")), expected(cevjax.load("ess-xe", form_factor="fermi"))
    assert 1e-4 < abs(fermi["cevns"].sum() / helm_["cevns"].sum() - 1) < 0.02
    written = load_folder(folder(SPALLATION, ("mass_kg", 'form_factor = "fermi"\nmass_kg')))
    chosen = load_folder(folder(SPALLATION), form_factor="fermi")
    np.testing.assert_array_equal(written.observed, chosen.observed)
    with pytest.raises(UnknownNameError, match="Did you mean 'helm'"):
        cevjax.load("ess-xe", form_factor="hel")


def test_a_composition_is_a_compound(folder):
    made = folder(SPALLATION, ('material = "CsI"', "composition = {Cs = 1, I = 1}"))
    np.testing.assert_array_equal(load_folder(made).observed, load_folder(folder(SPALLATION)).observed)


def test_forecasts_are_found_by_name():
    assert set(PUBLISHED) | {"coh-ar-750", "cryocsi-1", "cryocsi-2"} == set(forecast_names())
    with pytest.raises(UnknownNameError, match="Did you mean 'ess-csi'"):
        cevjax.load("ess-cs")


@settings(max_examples=3, deadline=None)
@given(
    st.floats(0.05, 5.0), st.floats(1.2, 30.0), st.integers(1, 30), st.sampled_from(["linear", "log", "sqrt"]),
    st.floats(0.05, 0.6),
)  # fmt: skip
def test_bins_add_up(tmp_path_factory, low, ratio, number, spacing, relative):
    """However the range is cut, the bins hold together what one bin holds."""
    place = tmp_path_factory.mktemp("bins")

    def total(n, kind):
        text = SPALLATION.replace(
            "edges = [2.0, 5.0, 10.0, 60.0]", f'low={low}\nhigh={low * ratio}\nnumber={n}\nspacing="{kind}"'
        )
        text = text.replace('kind = "none"', f'kind = "gaussian"\nstochastic = {relative * math.sqrt(low)}')
        (place / "measurement.toml").write_text(text)
        return float(np.sum(load_folder(place).observed))

    assert total(number, spacing) == pytest.approx(total(1, "linear"), rel=1e-4)


# -------------------------------------------------------------------------------------------------------- wrong input

TWICE = '[[nuisances]]\nname = "livetime"\nrelative_error = 0.01\non = ["flat"]\n[bins]'
COUNTED = '\n[counts]\nfile = "counts.csv"\n'
WRONG = {
    "negative": (("mass_kg = 2.924", "mass_kg = -3"), r"`target.mass_kg` must be .* up to 1e9, but was -3\."),
    "a word": (("mass_kg = 2.924", 'mass_kg = "3"'), r"`target.mass_kg` must be .* up to 1e9, but was '3'"),
    "infinite": (("baseline_m = 10.39", "baseline_m = inf"), r"`flux.baseline_m` must be a positive number, but"),
    "a boolean": (("low = 0.2", "low = true"), r"`bins.low` must be a number that is not negative, but was True"),
    "missing": (("mass_kg = 2.924", ""), r"key `target.mass_kg` is missing; it must be a positive number"),
    "no section": (("[target]", "[targets]"), r"key `target` is missing; it must be a table"),
    "unknown key": (("mass_kg", "mas_kg"), r"Unknown key of \[target\] 'mas_kg'. Did you mean 'mass_kg'\?"),
    "unknown section": (("[exposure]", "[exposures]"), r"Unknown key 'exposures'. Did you mean 'exposure'\?"),
    "unknown in a list": (("scale_kev", "scale_ev"), r"Unknown key of \[backgrounds\[1\]\] 'scale_ev'.*'scale_kev'"),
    "no table": (("[target]\nmaterial", "target = 3\n[foo]\nmaterial"), r"key `target` must be a table, but was 3"),
    "material": (('"Ge"', '"Gee"'), r"key `target.material`: Unknown target 'Gee'. Did you mean 'Ge'\?"),
    "element": (('material = "Ge"', "composition = {Gee = 1}"), r"`target.composition.Gee`: Unknown element 'Gee'"),
    "no element": (('material = "Ge"', "composition = {Ge = 0}"), r"`target.composition.Ge` must be a positive number"),
    "both": (('"Ge"', '"Ge"\ncomposition = {Ge = 1}'), r"key `target` must give `material` or `composition`"),
    "form factor": (("mass_kg", 'form_factor = "hel"\nmass_kg'), r"Unknown form factor 'hel'. Did you mean 'helm'\?"),
    "source": (('"reactor"', '"raector"'), r"Unknown `flux.source` 'raector'. Did you mean 'reactor'\?"),
    "no source": (('source = "reactor"', ""), r"key `flux.source` is missing; it must be one of pion-de"),
    "two fluxes": (("power_gw", "flux_per_cm2_s = 1e13\npower_gw"), r"key `flux` must give `power_gw` or"),
    "isotope": (("Pu241", "Pu242"), r"key `flux.fission_fractions.Pu242`: Unknown fissile isotope 'Pu242'"),
    "no fission": (("{U235 = 0.58, U238 = 0.08, Pu239 = 0.29, Pu241 = 0.05}", "{}"), r"`flux.fission_fractions`"),
    "reactor model": (("power_gw", 'model = "hmvee"\npower_gw'), r"key `flux.model`: Unknown reactor flux 'hmvee'"),
    "no exposure": (("[exposure]\ndays = 96.4", ""), r"key `exposure` is missing; it must give `days` or `years`"),
    "two exposures": (("days = 96.4", "days = 96.4\nyears = 1"), r"key `exposure` must give `days` or `years`, but"),
    "resolution": (("noise_kev = 0.0685\nstochastic = 0.018", ""), r"key `resolution` must give at least one of"),
    "at zero": (("noise_kev = 0.0685\nstochastic", "relative"), ("low = 0.2", "low = 0.0"), r"`bins` must begin above"),
    "edges": (("low = 0.2\nhigh = 0.6\nnumber = 8", "edges = [1, 1]"), r"`bins.edges` must be a list of at least two"),
    "edge": (("low = 0.2\nhigh = 0.6\nnumber = 8", 'edges = [1, "2"]'), r"`bins.edges\[1\]` must be a number"),
    "range": (("low = 0.2", "low = 0.7"), r"key `bins` must have `low` below `high`, but has 0.7 and 0.6"),
    "number": (("number = 8", "number = 8.5"), r"key `bins.number` must be a whole number from 1 to 10000"),
    "half a range": (("number = 8", ""), r"key `bins` must give `edges` or `low` and `high` and `number`, but gives"),
    "spacing": (("number = 8", 'number = 8\nspacing = "lin"'), r"key `bins.spacing` must be 'linear', 'log' or 'sqrt'"),
    "high bins": (("low = 0.2\nhigh = 0.6", "low = 0.0\nhigh = 0.6\nspacing = 'log'"), r"must have `low` above 0"),
    "shape": (('shape = "line"', 'shape = "lime"'), r"Unknown `backgrounds\[2\].shape` 'lime'\."),
    "same names": (('name = "rise"', 'name = "flat"'), r"`backgrounds.name` must be different names"),
    "component": (('"cevns", "flat"', '"cevn"'), r"key `nuisances.on` of 'livetime': Unknown component 'cevn'"),
    "clash": (('"livetime"', '"flat"'), r"'my_detector_flat' must have the same meaning and error"),
    "nuisance twice": (("[bins]", TWICE), r"'livetime' came twice"),
    "component twice": (('"cevns", "flat"', '"cevns", "cevns"'), r"must name each component once"),
    "fractions": (("U235 = 0.58", "U235 = 5.8"), r"`flux.fission_fractions` must be .* with a sum of 1"),
    "per cent": (("relative_error = 0.01", "relative_error = 50"), r"must be a relative error, above 0 and up to 2"),
    "falling": (('"lindhard"\nk = 0.157', '"polynomial"\ncoefficients = [-0.1]'), r"`quenching` must give"),
    "name": (('name = "rise"', 'name = "a rise"'), r"key `backgrounds\[1\].name` must be a name of letters, digits"),
    "TOML": (("mass_kg = 2.924", "mass_kg = 2.924 kg"), r"is not TOML: .*\(at line 6, column"),
    "time": (("[bins]", "[time]\nedges_us = [0, 1]\npulse_sigma_us = 1\n[bins]"), r"key `time` must go with a pulsed"),
    "pulse": (('shape = "line"', 'shape = "line"\ntime = "pulse"'), r"key `time` is missing; the background 'line'"),
    "steps": (("noise_kev = 0.0685\nstochastic = 0.018", ""), ("gaussian", "none"), r"`resolution.kind` must not"),
    "compound": (('"Ge"', '"CsI"'), r"key `quenching.Z` must be given, because CsI has several elements"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_keys_are_named(folder, what):
    *changes, message = WRONG[what]
    with pytest.raises(InvalidValueError, match=r"^File .*measurement\.toml") as caught:
        load_folder(folder(GERMANIUM, *changes))
    assert caught.match(r"(?s)" + message)


def test_all_problems_are_listed(folder):
    text = folder(GERMANIUM, ("mass_kg = 2.924", "mass_kg = 0"), ("days = 96.4", "day = 96.4"), ('"line"\ne', '"l"\ne'))
    with pytest.raises(InvalidValueError) as caught:
        load_folder(text)
    lines = str(caught.value).split("\n")
    assert all(line.startswith("File ") and "measurement.toml: " in line for line in lines)
    assert [sum(key in line for line in lines) for key in ("target.mass_kg", "'day'", "backgrounds[2].shape")] == [
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (None, ReleaseFileError, r"File .*counts\.csv does not exist; expected a table of counts"),
        ("1\n2\n", ReleaseFileError, r"counts\.csv: expected 8 lines, one for each energy bin, of 1 or 2 numbers"),
        ("1,1,1\n" * 8, ReleaseFileError, r"counts\.csv: expected 8 lines.* but found 8 of 3"),
        ("1\n" * 6 + "one\n1\n", ReleaseFileError, r"counts\.csv, line 7: expected 1 finite numbers.*'one'"),
        ("1,1\n" * 7 + "1,0\n", ReleaseFileError, r"counts\.csv: expected standard deviations above 0, but found 0"),
        ("1\n" * 7 + "-1\n", InvalidValueError, r"counts\.csv must be at least 0, but bin \(7,\) holds -1"),
    ],
)
def test_wrong_counts_are_named(folder, counts, error, message):
    place = folder(extra=COUNTED) if counts is None else folder(extra=COUNTED, counts=counts)
    with pytest.raises(error, match=message):
        load_folder(place)


@pytest.mark.parametrize(
    ("change", "table", "message"),
    [
        (
            'model = "table"\nfile = "curve.csv"',
            None,
            r"curve\.csv does not exist; expected a table of recoil energy in",
        ),
        (
            'model = "table"\nfile = "curve.csv"',
            "1,0.1\n1,0.2\n",
            r"curve\.csv: expected at least two lines .*increases",
        ),
        (
            'model = "table"\nfile = "curve.csv"',
            "1,0.1,3\n",
            r"curve\.csv, line 1: expected 2 finite numbers separated by ',' \(recoil",
        ),
        ('model = "table"\nfile = "curve.csv"', "1,0.1\n2,-0.1\n", r"curve\.csv: expected .* no number below 0"),
    ],
)
def test_wrong_tables_are_named(folder, change, table, message):
    tables = {} if table is None else {"curve": table}
    with pytest.raises(ReleaseFileError, match=message):
        load_folder(folder(GERMANIUM, ('model = "lindhard"\nk = 0.157', change), **tables))


def test_wrong_arguments_are_named(folder, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InvalidValueError, match=r"must be a folder with a file measurement\.toml"):
            load_folder(path)
    for factor in (0, -1.0, math.inf, math.nan, "many", None):
        with pytest.raises(InvalidValueError, match=r"Argument `exposure_factor` must be a positive number"):
            load_folder(folder(), exposure_factor=factor)
    with pytest.raises(InvalidValueError, match=r"Argument `es` must be True, False or None"):
        load_folder(folder(), es="yes")
    (folder() / "measurement.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValueError, match=r"measurement\.toml cannot be read as text"):
        load_folder(tmp_path / "my-detector")


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.floats(), max_size=3)
)


def spoilt(content, data):
    """The same tables with one value replaced, removed or renamed."""
    content = dict(content)
    key = data.draw(st.sampled_from(sorted(content)))
    inner = content[key]
    if isinstance(inner, list) and inner and isinstance(inner[0], dict):
        content[key] = [spoilt(inner[0], data), *inner[1:]]
    elif isinstance(inner, dict) and inner and data.draw(st.booleans()):
        content[key] = spoilt(inner, data)
    else:
        del content[key]
        if data.draw(st.booleans()):
            content[data.draw(st.text(max_size=5))] = inner
        else:
            content[key] = data.draw(values)
    return content


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_wrong_the_error_is_ours(data):
    """Any spoilt description is refused with a message that names the file, or still describes a detector."""
    from cevjax import detector
    from cevjax.detector import reading

    content = spoilt(tomllib.loads(GERMANIUM), data)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading.tomllib, "loads", lambda text: content)
        read = partial(detector.read_description, Path(cevjax.tables.data_dir("future")) / "ess-csi")
        try:
            read()
        except InvalidValueError as error:
            assert all(line.startswith("File ") for line in str(error).split("\n"))
