"""The first COHERENT CsI[Na] data, coherent-csi-2017, in NumPy and SciPy: it shares no code with cevjax.

Signal, shape (PE bins, flux components nu_mu, nu_e, nubar_mu); the single-bin chi2 of 1711.09773; the 12-bin chi2 of
2005.01645 (CsI part); the Poisson likelihood on PE x time. Energies in MeV, lengths in fm, times in us. Recoils and
flux moments are those of ``reference_lar``; electrons are counted by adaptive quadrature.
"""

from __future__ import annotations

import numpy as np
from iminuit import Minuit
from reference_csi import ALPHA, AVOGADRO, CM2, E_END, E_LINE, G_FERMI, HBARC, M_E, M_MU, SIN2
from reference_lar import deviance, flux_moments, nuclear_mass, recoil_nodes, vector_couplings
from reference_new_physics import SHELLS, free_electrons
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln, pdtr, spherical_jn, xlogy

NUCLIDES = {"Cs133": (55, 78, 132.905451959), "I127": (53, 74, 126.904473)}  # Z, N, atomic mass (u)
RADII = {"Cs133": (4.804, 5.01), "I127": (4.749, 4.94)}  # rms, of protons and neutrons, 2005.01645
LIGHT_YIELD, PE_EDGES = 13.348, np.arange(6, 31, 2)
EXPOSURE = 14570 / 259.809 * AVOGADRO * CM2 * 0.08 * 1.76e23 / (4 * np.pi * 1930.0**2)
TIMES = np.arange(0.25, 6, 0.5)
FLAVOURS = (1, 0, 1)  # of the flux components: index of (e, mu)
BINDING_KEV = [energy for shells in SHELLS.values() for energy in shells]


def acceptance(x: np.ndarray) -> np.ndarray:
    """Signal acceptance of the release for ``x`` photo-electrons."""
    return np.where(x < 5, 0.0, np.where(x < 6, 0.5, 1.0)) * 0.6655 / (1 + np.exp(-0.4942 * (x - 10.8507)))


def selected_neutrons(density: np.ndarray) -> np.ndarray:
    """Fractions of the selected neutrons in the 12 bins, from their density at 0.5, 1.5, ... PE before selection."""
    counts = (density * acceptance(np.arange(len(density)) + 0.5))[6:30].reshape(12, 2).sum(axis=1)
    return counts / counts.sum()


def birks_quenching(T: np.ndarray, k_B: float = 3.311e-3, E_a: float = 12.97) -> np.ndarray:
    """Form of 1907.04828, (1 - exp(-T/E_a)) / (k_B dE/dr), parameters in g/MeV/cm2 and keV; T in keV.

    The paper takes dE/dr from SRIM; here ZBL nuclear and Lindhard-Scharff electronic stopping of iodine-like ions
    (Z = 54, A = 129.9) in themselves, so this is an approximation to the published curve.
    """
    Z, A = 54.0, 129.9
    eps = 32.53 * T / (2 * Z**2 * 2 * Z**0.23)
    reduced = np.log1p(1.1383 * eps) / (2 * (eps + 0.01321 * eps**0.21226 + 0.19593 * np.sqrt(eps)))
    nuclear = 8.462 * Z**2 / (2 * 2 * Z**0.23) * reduced  # eV cm2 / 1e15 atoms
    electronic = 19.2 * Z ** (7 / 6) * Z / (2 * Z ** (2 / 3)) ** 1.5 * np.sqrt(T / A / 24.98)
    return -np.expm1(-T / E_a) / (k_B * (nuclear + electronic) * 1e-21 * AVOGADRO / A)


class ReferenceCsI17:
    """Expected counts and statistics.

    Args:
        on, off: coincident and anti-coincident counts, 12 PE x 12 time bins.
        times: fractions of prompt and delayed neutrinos and of prompt neutrons, shape (12, 3).
        neutrons: fractions of the selected neutrons in each PE bin.
        quenching: factor as a function of T in keV.
        form_factor: ``helm`` (of rms ``radii``) or ``1711.09773`` (R = 1.2 A^(1/3), s = 0.5 fm, for both).
        couplings: of ``vector_couplings``.
        radii: (R_p, R_n) of each nuclide.
        nodes: of each of the two pieces of the recoils.
    """

    nuisances = ("sns_flux", *(f"csi2017_{name}" for name in ("signal", "quenching", "radius", "brn", "ssb")))

    def __init__(self, on, off, times, neutrons, *, quenching=lambda T: 0.0878 + 0 * T, form_factor="helm",
                 couplings="tree", radii=RADII, nodes=150):  # fmt: skip
        self.on, self.off, self.neutrons = (np.asarray(a, float) for a in (on, off, neutrons))
        prompt, delayed, self.brn_time = np.asarray(times, float).T
        self.times = np.array([prompt, delayed, delayed])  # per component
        self.quenching, self.form_factor, self.couplings, self.radii = quenching, form_factor, couplings, radii
        self.grids = {}
        for name, (Z, _, atomic_mass) in NUCLIDES.items():
            mass = nuclear_mass(Z, atomic_mass)
            T, weight = recoil_nodes(mass, nodes)
            zero, one, two = flux_moments(T, mass).transpose(1, 0, 2)
            weak = G_FERMI**2 * mass / np.pi * (zero - mass * T / 2 * two)
            magnetic = np.pi * (ALPHA / M_E) ** 2 * (zero / T - one)
            self.grids[name] = T, np.sqrt(2 * mass * T) / HBARC, EXPOSURE * weight * weak, EXPOSURE * weight * magnetic
        self._responses = {}

    def _charges(self, name: str, k: np.ndarray, radius_scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Z F_Z and N F_N at k = q/(hbar c); the scale is of the neutron radius."""
        Z, N, _ = NUCLIDES[name]
        if self.form_factor == "helm":
            (R_p, R_n), s = self.radii[name], 0.9
            boxes = [np.sqrt(5 / 3 * (R**2 - 3 * s**2)) for R in (R_p, R_n * radius_scale)]
        else:
            s = 0.5
            boxes = [np.sqrt((1.2 * (Z + N) ** (1 / 3)) ** 2 - 5 * s**2)] * 2
        surface = 3 * np.exp(-((k * s) ** 2) / 2)
        return tuple(n * surface * spherical_jn(1, k * b) / (k * b) for n, b in zip((Z, N), boxes, strict=True))

    def _response(self, name: str, scale: float) -> np.ndarray:
        """Probability of each PE bin at the recoil nodes, with quenching times ``scale``; shape (nodes, 12)."""
        if (name, scale) not in self._responses:
            T = 1e3 * self.grids[name][0]
            mean = (LIGHT_YIELD * scale * self.quenching(T) * T)[:, None]
            n = np.arange(6, 30)
            poisson = np.exp(xlogy(n, mean) - mean - gammaln(n + 1)) * acceptance(n)
            if len(self._responses) > 100:
                self._responses.clear()
            self._responses[name, scale] = poisson.reshape(len(T), 12, 2).sum(axis=2)
        return self._responses[name, scale]

    def signal(self, s2w=SIN2, eps_u=(0.0, 0.0), eps_d=(0.0, 0.0), mu=(0.0, 0.0), quenching_scale=1.0,
               radius_scale=1.0) -> np.ndarray:  # fmt: skip
        """Expected CEvNS events of all times, (PE bins, components); eps and magnetic moments (mu_B) of (e, mu)."""
        *g_p, g_n = vector_couplings(self.couplings, s2w)
        total = 0.0
        for name, (_, k, weak, magnetic) in self.grids.items():
            protons, neutrons = self._charges(name, k, radius_scale)
            rows = []
            for component, f in enumerate(FLAVOURS):
                charge = (g_p[f] + 2 * eps_u[f] + eps_d[f]) * protons + (g_n + eps_u[f] + 2 * eps_d[f]) * neutrons
                rows.append(weak[component] * charge**2 + magnetic[component] * (mu[f] * protons) ** 2)
            total = total + self._response(name, quenching_scale).T @ np.array(rows).T
        return total

    def chi2_single_bin(self, signal: np.ndarray) -> float:
        """1711.09773, minimised over its two nuisances in closed form."""
        N_meas, N_0n, N_ss = (self.on - self.off).sum(), 6.0, self.off.sum()
        variance = N_meas + 2 * N_ss + N_0n + (0.28 * signal.sum()) ** 2 + (0.25 * N_0n) ** 2
        return (N_meas - signal.sum() - N_0n) ** 2 / variance

    def chi2_spectrum(self, signal: np.ndarray) -> float:
        """2005.01645, minimised over the normalisations in closed form."""
        data, variance = (self.on - self.off).sum(axis=1), (self.on + self.off).sum(axis=1)
        cevns, brn = signal.sum(axis=1), 6.0 * self.neutrons
        residual, covariance = data - cevns - brn, np.diag(variance)
        for counts, sigma in ((cevns, 0.112), (cevns, 0.051), (brn, 0.25)):
            covariance = covariance + sigma**2 * np.outer(counts, counts)
        return float(residual @ np.linalg.solve(covariance, residual))

    def rate(self) -> float:
        """Of the exponential that describes the times of the anti-coincident events best, 1/us (maximum likelihood)."""
        mean = (self.off.sum(axis=0) * TIMES).sum() / self.off.sum()
        return brentq(lambda r: (TIMES * np.exp(-r * TIMES)).sum() / np.exp(-r * TIMES).sum() - mean, -1, 1)

    def expected(self, s2w=SIN2, rate=0.127, **pulls: float) -> dict[str, np.ndarray]:
        """Events of each component of ``default`` (constant quenching), 12 PE x 12 time bins."""
        p = {**dict.fromkeys(self.nuisances, 0.0), **pulls}
        scales = 1 + 0.189 * p["csi2017_quenching"], 1 + 0.05 * p["csi2017_radius"]
        norm = 1 + 0.10 * p["sns_flux"] + np.sqrt(0.112**2 - 0.10**2) * p["csi2017_signal"]
        steady = np.outer(self.off.sum(axis=1), np.exp(-rate * TIMES))
        return {
            "cevns": norm * self.signal(s2w, quenching_scale=scales[0], radius_scale=scales[1]) @ self.times,
            "brn": 6.0 * (1 + 0.25 * p["csi2017_brn"]) * np.outer(self.neutrons, self.brn_time),
            "ssb": 405.0 * (1 + 0.0497 * p["csi2017_ssb"]) * steady / steady.sum(),
        }

    def chi2(self, s2w=SIN2, **pulls: float) -> float:
        """Deviance and constraints of ``default``."""
        return deviance(self.on, sum(self.expected(s2w, **pulls).values())) + sum(p**2 for p in pulls.values())

    def fit(self, *free: str, **fixed: float) -> Minuit:
        """Minimum over the nuisances of ``default`` and ``free`` (s2w)."""
        names = (*free, *self.nuisances)
        start = [SIN2 if name == "s2w" else 0.0 for name in names]
        minuit = Minuit(lambda *x: self.chi2(**fixed, **dict(zip(names, x, strict=True))), *start, name=names)
        minuit.errors = [0.03 if name == "s2w" else 0.5 for name in names]
        minuit.limits["csi2017_quenching"] = (-5, 5)
        minuit.errordef, minuit.strategy, minuit.tol = 1, 2, 1e-3
        minuit.migrad()
        minuit.hesse()
        return minuit


def electron_counts(s2w=SIN2, mu=(0.0, 0.0), low_kev=1e-3, high_kev=20.0) -> np.ndarray:
    """Events of scattering on electrons in 6-30 PE at all times from nu_mu, nu_e, nubar_mu, by nested quadrature.

    Free electrons where the recoil exceeds the binding energy of the shell; tree-level couplings; no quenching.
    """
    n = np.arange(6, 30)
    spectra = (
        None,
        lambda E: 192 / M_MU**3 * E**2 * (0.5 - E / M_MU),
        lambda E: 64 / M_MU**3 * E**2 * (0.75 - E / M_MU),
    )

    def selected(kev):
        mean = LIGHT_YIELD * kev
        return float(np.sum((pdtr(n, mean) - pdtr(n - 1, mean)) * acceptance(n)))

    def cross_section(E, T, g_V, g_A, moment):
        weak = G_FERMI**2 * M_E / (2 * np.pi)
        weak *= (g_V + g_A) ** 2 + (g_V - g_A) ** 2 * (1 - T / E) ** 2 - (g_V**2 - g_A**2) * M_E * T / E**2
        return weak + np.pi * (ALPHA * moment / M_E) ** 2 * (1 / T - 1 / E)

    totals = []
    for component, flavour in enumerate(FLAVOURS):
        half = 0.5 if flavour == 0 else -0.5
        physics = 2 * s2w + half, -half if component == 2 else half, mu[flavour]

        def rate(kev, spectrum=spectra[component], physics=physics):
            T = 1e-3 * kev
            low = (T + np.sqrt(T**2 + 2 * M_E * T)) / 2
            if spectrum is None:
                folded = cross_section(E_LINE, T, *physics)
            else:
                folded = quad(lambda E: spectrum(E) * cross_section(E, T, *physics), low, E_END, epsrel=1e-9)[0]
            electrons = sum(float(free_electrons(name, np.array([T]))[0]) for name in NUCLIDES)
            return 1e-3 * folded * electrons * selected(kev)

        cuts = [low_kev, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, high_kev]
        edges = sorted({*cuts, *(b for b in BINDING_KEV if low_kev < b < high_kev)})
        pieces = [quad(rate, a, b, epsrel=1e-6)[0] for a, b in zip(edges, edges[1:], strict=False)]
        totals.append(EXPOSURE * sum(pieces))
    return np.array(totals)
