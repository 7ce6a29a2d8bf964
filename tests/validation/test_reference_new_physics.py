"""New physics and electrons in coherent-csi-2021 against an independent implementation in NumPy and SciPy.

Largest relative differences of the counts in a PE bin:

- nuclei: 3e-9, with dipoles 3e-8; also 3e-8 with Klein-Nystrand form factors, whose radii cevjax rounds to 1e-6 fm;
- electrons: 8e-6, from eight nodes for each unit of ln T; 4e-5 where a massive state opens within the region;
- nuclei under oscillations that turn several times along the recoils: 4e-6 at 40 and at 1000 eV2, and at worst, at
  200 eV2, 1.3e-4 in the last bin.

But for the rounding all comes from cevjax's recoil grids: on finer ones nuclei agree to 1e-11 and electrons to 2e-10
(2e-9 with the massive state); only the fastest oscillations take more. See ``test_finer_grids``.
"""

from functools import cache
from unittest import mock

import numpy as np
import pytest
from reference_csi import E_END, E_LINE, G_FERMI, HBARC, M_E, M_MU, NUCLIDES, SIN2, ReferenceCsI
from reference_new_physics import (
    ALPHA,
    PHOTON,
    SHELLS,
    WAVE,
    ReferenceNewPhysics,
    energy_min,
    exponential_integral,
    free_electrons,
    inverse_moments,
    recoil_range,
)
from scipy.integrate import quad
from scipy.stats import gamma

import cevjax
from cevjax import scattering
from cevjax.datasets import coherent_csi_2021

NAME = "coherent-csi-2021"
STATISTICS = ("2211.11905", "default")
TINY = 1e-6  # events

CASES = {
    "sm": {},
    "magnetic": {"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9},
    "millicharge": {"q_nu_mumu": 1e-9},
    "millicharges": {"q_nu_ee": -3e-8, "q_nu_mumu": 2e-8, "q_nu_emu": 1e-8, "q_nu_etau": 2e-8, "q_nu_mutau": 3e-8},
    "charge radii": {
        "r2_nu_ee": -5e-32, "r2_nu_mumu": 1e-31, "r2_nu_emu": 2e-31, "r2_nu_etau": 3e-31, "r2_nu_mutau": 1e-31
    },
    "vector": {"m_zprime": 1.0, "g_zprime": 3e-5},
    "scalar": {"m_phi": 5.0, "g_phi": 5e-5},
    # 0.3 MeV: all is open; 1.4: begins within the electron recoils; 20 and 29: within the nuclear ones; 40: no line
    **{f"dipole {m}": {"m_4": m, "mu_nu4_mu": 5e-9} for m in (0.3, 1.4, 5.0, 20.0, 29.0, 40.0)},
    "dipoles": {"m_4": 25.0, "mu_nu4_e": 4e-9, "mu_nu4_mu": 2e-9},
}  # fmt: skip
WAVES = {
    f"sterile {d}": {"dm2_41": d, "sin2_2theta_ee": 0.4, "sin2_2theta_mumu": 0.3} for d in (1.0, 40.0, 200.0, 1000.0)
}
WAVE_TOLERANCES = (1e-7, 5e-6, 2e-4, 5e-6)  # of nuclei, on cevjax's 24 nodes: see test_finer_grids
TOGETHER = {k: v for label in ("magnetic", "millicharge", "charge radii", "vector") for k, v in CASES[label].items()}
TOGETHER |= {**CASES["scalar"], **CASES["dipoles"], "sin2_theta_w": 0.22}


@cache
def reference(statistic):
    return ReferenceNewPhysics(statistic)


@cache
def likelihood(statistic, kind):
    interaction = cevjax.StandardModel()
    if kind == "sterile":
        interaction += cevjax.Sterile()
    elif kind == "magnetic":
        interaction += cevjax.MagneticMoment()
    else:
        interaction += cevjax.MagneticMoment() + cevjax.Millicharge() + cevjax.ChargeRadius()
        interaction += cevjax.LightVector(model="b-l") + cevjax.LightScalar() + cevjax.DipolePortal()
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, es=True), interaction)


def both(statistic, values):
    """Expected counts of cevjax and of the reference."""
    like = likelihood(statistic, "sterile" if "dm2_41" in values else "all")
    point = {name: float(value) for name, value in like.nominal(**values).items()}  # of one type, to compile once
    ours = like.expected(point)[NAME]
    return {name: np.asarray(counts) for name, counts in ours.items()}, reference(statistic).expected(values)


# --- the reference itself


@pytest.mark.parametrize("order", [1, 2, 4, 5])
def test_exponential_integrals(order):
    mpmath = pytest.importorskip("mpmath")
    y = np.array([0.3, 0.9, 4.0, 9.99, 10.01, 30.0, 900.0, 2e5])
    truth = [complex(mpmath.expint(order, -1j * x)) for x in y]
    np.testing.assert_allclose(exponential_integral(order, y), truth, rtol=1e-12)


def density(flavour, E):
    x = E / M_MU
    return 192 / M_MU * x**2 * (0.5 - x) if flavour == "e" else 64 / M_MU * x**2 * (0.75 - x)


@pytest.mark.parametrize("omega", [0.0, WAVE * 19.3, WAVE * 40 * 19.3])
def test_moments_of_the_flux(omega):
    low, amplitudes = np.array([3.0, 20.0, 45.0]), (0.4, 0.3)
    found = inverse_moments(low, amplitudes, omega)
    for i, flavour, amplitude in ((1, "e", 0.4), (2, "mu", 0.3)):
        for k in range(3):

            def integrand(E, k=k, flavour=flavour, amplitude=amplitude):
                return density(flavour, E) / E**k * (1 - amplitude * np.sin(omega / E) ** 2)

            truth = [quad(integrand, x, E_END, epsabs=0, epsrel=1e-10, limit=2000)[0] for x in low]
            np.testing.assert_allclose(found[i, k], truth, rtol=1e-9)
    line = (1 - 0.3 * np.sin(omega / E_LINE) ** 2) / E_LINE ** np.arange(3)[:, None] * (low < E_LINE)
    np.testing.assert_allclose(found[0], line, rtol=1e-12)


def test_recoil_range_is_where_the_energy_suffices():
    for M, m in ((123_772.8, 0.0), (123_772.8, 5.0), (123_772.8, 40.0), (M_E, 0.3), (M_E, 1.4)):
        for T in recoil_range(E_END, M, m):
            if T > 0:
                assert energy_min(np.array(T), M, m) == pytest.approx(E_END, rel=1e-6)
    assert recoil_range(E_LINE, 123_772.8, 30.0) == recoil_range(E_LINE, M_E, 6.0) == ()


def test_response_of_the_reference():
    ref = reference("default")
    a, b, c, d = ref.facts["efficiency"]["nominal"]
    alpha, beta = ref.facts["resolution"]["alpha"], ref.facts["resolution"]["beta"]
    for energy in (0.2, 0.9, 3.0):
        spread = gamma(1 + beta * energy, scale=energy / alpha / (1 + beta * energy))
        found = ref.selected(np.array([energy]))[0]
        for low, high, value in zip(ref.pe_edges, ref.pe_edges[1:], found, strict=False):
            start = max(low, c - np.log(-a / d - 1) / b)
            truth = quad(lambda x, s=spread: s.pdf(x) * (a / (1 + np.exp(-b * (x - c))) + d), start, high, epsrel=1e-10)
            assert value == pytest.approx(truth[0], rel=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_reference_agrees_with_the_other_reference(statistic):
    """That of the standard model: gamma functions, a spline and other recoil grids instead of densities."""
    pulls = {"csi2021_radius": 0.7, "csi2021_brn": -0.4, "csi2021_nin": 1.1, "csi2021_ssb": 0.3, "sin2_theta_w": 0.21}
    if statistic == "default":
        pulls |= {"csi2021_qf0": 0.5, "csi2021_qf1": -0.8, "csi2021_efficiency": 0.6, "csi2021_timing": 0.2}
    ours, theirs = reference(statistic).expected(pulls), ReferenceCsI(statistic).expected(pulls)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("case", [*CASES, *WAVES])
def test_reference_has_converged(case):
    values = (CASES | WAVES)[case]
    fine, coarse = ReferenceNewPhysics("2211.11905", fineness=1.5).expected(values), reference("2211.11905")
    for name, counts in coarse.expected(values).items():
        np.testing.assert_allclose(counts, fine[name], rtol=1e-9, atol=1e-15)


def adaptive(ref, bin_, M, number, cross_section, m=0.0):
    """Events in a PE bin by nested adaptive integration of dsigma/dT(E, T, flavour, antineutrino)."""
    curve = [*ref.facts["quenching"]["coefficients"][::-1], 0.0]

    def recoils(T):
        start = float(energy_min(np.array(T), M, m))
        total = cross_section(E_LINE, T, "mu", False) if start <= E_LINE else 0.0
        for flavour, anti in (("e", False), ("mu", True)):
            if start < E_END:

                def folded(E, flavour=flavour, anti=anti):
                    return density(flavour, E) * cross_section(E, T, flavour, anti)

                total += quad(folded, start, E_END, epsabs=0, epsrel=1e-9)[0]
        energy = 1e3 * (T if M == M_E else np.polyval(curve, T))
        return number(T) * total * ref.selected(np.array([energy]))[0, bin_]

    low, high = (1e-5, 8e-3) if M == M_E else (2e-3, recoil_range(E_END, M)[1])
    kinks = {T for E in (E_LINE, E_END) for T in (*recoil_range(E, M, m), *recoil_range(E, M))}
    kinks |= {1e-3 * x for shells in SHELLS.values() for x in shells} if M == M_E else set()
    cuts = np.unique([low, *(T for T in kinks if low < T < high), high])
    pieces = (quad(recoils, a, b, epsabs=0, epsrel=1e-8)[0] for a, b in zip(cuts, cuts[1:], strict=False))
    return ref.exposure * sum(pieces)


@pytest.mark.parametrize("m_4", [0.0, 1.4])
def test_electrons_of_the_reference_by_adaptive_integration(m_4):
    ref, q, mu = reference("2211.11905"), -4e-13, 1e-12

    def cross_section(E, T, flavour, anti):
        dipole = np.pi * ALPHA**2 / M_E**2 * mu**2
        if m_4:  # alone, because it begins at another energy
            bracket = 1 / T - 1 / E - m_4**2 / (2 * E * T * M_E) * (1 - T / (2 * E) + M_E / (2 * E))
            return dipole * (flavour == "mu") * (bracket + m_4**4 * (T - M_E) / (8 * E**2 * T**2 * M_E**2))
        half = 0.5 if flavour == "e" else -0.5
        g_V = 2 * SIN2 + half - (PHOTON * q / (2 * M_E * T) if flavour == "mu" else 0.0)
        g_A = -half if anti else half
        bracket = (g_V + g_A) ** 2 + (g_V - g_A) ** 2 * (1 - T / E) ** 2 - (g_V**2 - g_A**2) * M_E * T / E**2
        return G_FERMI**2 * M_E / (2 * np.pi) * bracket + dipole * (flavour == "e") * (1 / T - 1 / E)

    def number(T):
        return sum(float(free_electrons(name, np.array(T))) for name in NUCLIDES)

    values = {"m_4": m_4, "mu_nu4_mu": mu} if m_4 else {"q_nu_mumu": q, "mu_nu_e": mu}
    found = ref.by_component(values)["es"] - (ref.by_component({})["es"] if m_4 else 0.0)
    assert found[:, 3].sum() == pytest.approx(adaptive(ref, 3, M_E, number, cross_section, m_4), rel=1e-7)


@pytest.mark.parametrize("m_4", [0.0, 20.0])
def test_nuclei_of_the_reference_by_adaptive_integration(m_4):
    ref, g, m_z, mu = reference("2211.11905"), 3e-5, 1.0, 5e-9
    truth = 0.0
    for name, (Z, N, *_) in NUCLIDES.items():
        M, box = ref.masses[name], 1.23 * (Z + N) ** (1 / 3)

        def cross_section(E, T, flavour, anti, Z=Z, N=N, M=M, box=box):
            q2 = 2 * M * T
            x = np.sqrt(q2) / HBARC
            F2 = (3 * (np.sin(x * box) - x * box * np.cos(x * box)) / (x * box) ** 3 / (1 + (0.7 * x) ** 2)) ** 2
            if m_4:
                bracket = 1 / T - 1 / E - m_4**2 / (2 * E * T * M) * (1 - T / (2 * E) + M / (2 * E))
                bracket += m_4**4 * (T - M) / (8 * E**2 * T**2 * M**2)
                return np.pi * ALPHA**2 / M_E**2 * Z**2 * F2 * mu**2 * (flavour == "mu") * bracket
            boson = g**2 * -1 / (np.sqrt(2) * G_FERMI * (q2 + m_z**2))
            Q = Z * (0.5 - 2 * SIN2 + boson) + N * (-0.5 + boson)
            return G_FERMI**2 * M / np.pi * (1 - M * T / (2 * E**2)) * Q**2 * F2

        truth += adaptive(ref, 3, M, lambda T: 1.0, cross_section, m_4)
    values = {"m_4": m_4, "mu_nu4_mu": mu} if m_4 else {"m_zprime": m_z, "g_zprime": g}
    found = ref.by_component(values)["cevns"] - (ref.by_component({})["cevns"] if m_4 else 0.0)
    assert found[:, 3].sum() == pytest.approx(truth, rel=1e-7)


# --- expected counts


def assert_agree(ours, theirs, nuclei, electrons):
    """Counts of each PE bin."""
    for name, tolerance in (("cevns", nuclei), ("es", electrons)):
        np.testing.assert_allclose(ours[name].sum(axis=1), theirs[name].sum(axis=1), rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_expected_counts(statistic, case):
    begins_within = case == "dipole 1.4"
    assert_agree(*both(statistic, CASES[case]), nuclei=1e-7, electrons=5e-5 if begins_within else 1e-5)


@pytest.mark.parametrize(("case", "nuclei"), [*zip(WAVES, WAVE_TOLERANCES, strict=True)])
def test_expected_counts_with_a_sterile_neutrino(case, nuclei):
    assert_agree(*both("2211.11905", WAVES[case]), nuclei=nuclei, electrons=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "nuclei"), [*zip(WAVES, WAVE_TOLERANCES, strict=True)][2:3])
def test_expected_counts_with_a_sterile_neutrino_in_the_default(case, nuclei):
    assert_agree(*both("default", WAVES[case]), nuclei=nuclei, electrons=1e-5)


def test_standard_model_electrons_are_few():
    ours, theirs = both("default", {})
    assert theirs["es"].sum() == pytest.approx(7.5459e-5, rel=1e-4)
    by_component = reference("default").by_component({})["es"].sum(axis=1)
    # (g_V + g_A)^2 + (g_V - g_A)^2 of nu_mu, nu_e, nubar_mu at the same T << E: flavours differ, antineutrinos do not
    left, right = 2 * SIN2 + np.array([-1, 1, -1]), 2 * SIN2
    np.testing.assert_allclose(
        by_component / by_component[0], (left**2 + right**2) / (left[0] ** 2 + right**2), rtol=5e-3
    )
    assert ours["es"].sum() == pytest.approx(theirs["es"].sum(), rel=1e-5)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_everything_at_once_with_nuisances(statistic):
    """All bins of PE and time and all components, at a random point of the nuisances."""
    ref, rng = reference(statistic), np.random.default_rng(20211007)
    pulls = {name: 0.7 * rng.normal() for name in ref.names[1:]}
    values = TOGETHER | {name: float(np.clip(x, *ref.limits.get(name, (-5, 5)))) for name, x in pulls.items()}
    assert set(ref.names[1:]) == set(likelihood(statistic, "all").nuisances)
    ours, theirs = both(statistic, values)
    assert set(ours) == set(theirs)
    for name, counts in theirs.items():
        some = counts > TINY
        tolerance = 2e-5 if name == "es" else 1e-6
        np.testing.assert_allclose(ours[name][some], counts[some], rtol=tolerance, err_msg=name)
        assert np.all(ours[name][~some] < 1.01 * TINY)


@cache
def finer_likelihood(sterile):
    nuclei, electrons = scattering.recoil_grid, scattering.electron_grid
    with (
        mock.patch.object(scattering, "recoil_grid", lambda *args: nuclei(*args[:2], 96)),
        mock.patch.object(scattering, "electron_grid", lambda *args, **_: electrons(*args, order=32)),
        mock.patch.object(coherent_csi_2021, "ELECTRON_RECOILS_KEV", (0.02, 16.0)),
    ):
        measurement = cevjax.load(NAME, es=True)
    return cevjax.Likelihood(measurement, likelihood("default", "sterile" if sterile else "all").interaction)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sm", "millicharges", "vector", "dipole 1.4", "dipole 20.0", "sterile 200.0"])
def test_finer_grids(case):
    """What is left of the differences goes away with the coarseness of the recoil grids."""
    like, values = finer_likelihood(case in WAVES), (CASES | WAVES)[case]
    ours = {name: np.asarray(counts) for name, counts in like.expected(like.nominal(**values))[NAME].items()}
    theirs = reference("default").expected(values)
    waves = {"sterile 200.0": 5e-7, "sterile 1000.0": 5e-6}  # the faster, the more nodes it takes
    assert_agree(ours, theirs, nuclei=waves.get(case, 5e-9), electrons=5e-9)


# --- a fit against MINUIT


def minuit(ref, held):
    """chi2 of the reference at ``held``, minimised over the nuisances by MINUIT."""
    iminuit = pytest.importorskip("iminuit")
    names = ref.names[1:]
    fitted = iminuit.Minuit(
        lambda x: ref.chi2({**held, **dict(zip(names, x, strict=True))}), [0.0] * len(names), name=names
    )
    fitted.errordef, fitted.strategy, fitted.tol = 1, 2, 1e-4
    for name in names:
        fitted.errors[name], fitted.limits[name] = 0.5, ref.limits[name]
    fitted.migrad()
    assert fitted.valid
    return fitted.fval


@pytest.mark.slow
def test_profile_of_a_magnetic_moment():
    moments = [0.0, 1.5e-9, 3e-9]
    truth = np.array([minuit(reference("2211.11905"), {"mu_nu_mu": x}) for x in moments])
    result = cevjax.profile(likelihood("2211.11905", "magnetic"), {"mu_nu_mu": moments})
    assert np.all(result.converged)
    np.testing.assert_allclose(result.chi2, truth, atol=1e-4)
    np.testing.assert_allclose(np.diff(result.chi2), np.diff(truth), atol=1e-4)
    assert truth[2] - truth[0] > 1.0
