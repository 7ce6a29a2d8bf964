"""A second implementation of coherent-lar-2020 (CENNS-10), in NumPy, SciPy and iminuit: it shares no code with cevjax.

Numerics: flux moments of the Michel spectra in closed form; recoils by Gauss-Legendre in sqrt(T), up to the end point
of the line and beyond; energy resolution times efficiency (of straight pieces in the reconstructed energy) and arrival
times in closed form (normal and exponentially modified normal distributions).

Statistics:

- ``chi2_2211``: 12 energies x 10 times, Gaussian, of 2211.11905. Every nuisance is linear, so the minimum is exact.
- ``chi2_1d``: background-subtracted energies, of 2005.01645; linear too.
- ``nll_3d``: 2 x negative log-likelihood on all 960 cells, of templates of which each has its number of events.
- ``DefaultLAr``: the same with the own signal and all nuisances of ``default``.

A release is a dictionary of arrays: see ``load``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from iminuit import Minuit
from reference_csi import ALPHA, AVOGADRO, CM2, E_END, E_LINE, G_FERMI, HBARC, M_E, M_MU, M_W, SIN2, TAU_MU, TAU_PI
from reference_csi import UNIT_MASS as U
from scipy.optimize import lsq_linear
from scipy.special import log_ndtr, ndtr, spherical_jn, xlogy

Z, N, ATOMIC_MASS = 18, 22, 39.9623831237  # argon is taken as pure Ar40
R_P, R_N = np.sqrt(3.4274**2 + N / Z * 0.1161), 3.55  # charge radius less the neutrons' <r^2>; theory
BASELINE_CM, PER_PROTON = 2750.0, 0.09
QF, RESOLUTION = (0.246, 0.00078), 0.58
PULSE = 0.44, 0.15  # mean and width
ENERGY_EDGES = np.linspace(0, 120, 13)  # keVee
TIME_EDGES = -0.1 + 0.5 * np.arange(11)
FLAVOUR = (1, 0, 1)  # of nu_mu, nu_e, nubar_mu: index of (e, mu)
PAPERS = {"mass_kg": 24.0, "protons": 13.7e22}
FILES = {
    "data": "datanobkgsub", "cevns": "cevnspdf", "cevns_f90_plus": "cevnspdf+1sigF90",
    "cevns_f90_minus": "cevnspdf-1sigF90", "cevns_time": "cevnspdfCEvNSTimingMeanSyst", "brn": "brnpdf",
    "brn_energy_plus": "brnpdf+1sigEnergy", "brn_energy_minus": "brnpdf-1sigEnergy",
    "brn_time_plus": "brnpdf+1sigBRNTimingMean", "brn_time_minus": "brnpdf-1sigBRNTimingMean",
    "brn_width": "brnpdfBRNTimingWidthSyst", "brn_delayed": "delbrnpdf", "ssb": "bkgpdf",
}  # fmt: skip
BRN_SIDES = ("_energy_plus", "_energy_minus", "_time_plus", "_time_minus", "_width")
SIGMAS_2211 = {
    "signal": 0.13, "f90": 1.0, "timing": 1.0, "ssb": 0.0079, "brn": 0.32, "brn_energy": 1.0, "brn_time": 1.0,
    "brn_width": 1.0, "brn_delayed": 1.0,
}  # fmt: skip


def nuclear_mass(Z: int, atomic_mass: float) -> float:
    """MeV, from the atomic mass in u: less the electrons, plus their binding energy (AME2020)."""
    return atomic_mass * U - Z * M_E + 14.4381e-6 * Z**2.39 + 1.55468e-12 * Z**5.35


M = nuclear_mass(Z, ATOMIC_MASS)


def load(folder) -> dict[str, np.ndarray]:
    """Templates and data, shape (12 energies, 8 F90, 10 times); keVee and efficiency; subtracted energies and errors.

    The +1 sigma file of the BRN time mean sums to 523.7 events and is normalised to the 497.0 of the others.
    """
    folder = Path(folder)
    release = {key: np.loadtxt(folder / f"{name}.txt")[:, 3].reshape(12, 8, 10) for key, name in FILES.items()}
    release["brn_time_plus"] *= release["brn"].sum() / release["brn_time_plus"].sum()
    release["efficiency"] = np.loadtxt(folder / "CENNS10AnlAEfficiency.txt")[:, [0, 2]]
    release["subtracted"] = np.loadtxt(folder / "energydata1d.txt", skiprows=1)[:, 1:3]
    return release


def vector_couplings(name: str, s2w: float = SIN2) -> tuple[float, float, float]:
    """g_V^p of e and mu and g_V^n: ``tree``, ``erler-su`` (2005.01645 eq. 5-7) or ``2023`` (2303.09360)."""
    if name == "tree":
        return 0.5 - 2 * s2w, 0.5 - 2 * s2w, -0.5
    rho, a_z, s_z, a_w, a_s = 1.00063, 1 / 127.952, 0.23122, 0.123, 0.118
    if name == "erler-su":
        loop = a_z / (4 * np.pi * s_z)
        proton = rho * (0.5 - 2 * s2w) - loop * (1 - 2 * a_w / np.pi)
        e, mu = (ALPHA / (6 * np.pi) * (3 + 4 * np.log(M_W / m)) for m in (M_E, M_MU))
        return proton + e, proton + mu, -rho / 2 - loop / 2 * (7 - 5 * a_w / np.pi)
    crossed = -a_z / (2 * np.pi * s_z) * (1 - a_w / (2 * np.pi))
    ww = a_z / (8 * np.pi * s_z) * (1 + a_w / np.pi)
    zz = -3 * a_z / (8 * np.pi * s_z * (1 - s_z)) * (1 - a_s / np.pi)
    up = zz * ((1 / 2 - 2 / 3 * s_z) ** 2 - (2 / 3 * s_z) ** 2)
    down = zz * ((1 / 2 - 1 / 3 * s_z) ** 2 - (1 / 3 * s_z) ** 2)
    proton = rho * (0.5 - 2 * s2w + 2 * up + down) + 2 * ww + crossed
    e, mu = (ALPHA / (3 * np.pi) * (2 * np.log(M_W / m) + 1.5) for m in (M_E, M_MU))
    return proton + e, proton + mu, rho * (2 * down + up - 0.5) + 2 * crossed + ww


def recoil_nodes(mass: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Recoils (MeV) and weights: Gauss-Legendre in sqrt(T) below and above the end point of the line."""
    y, w = np.polynomial.legendre.leggauss(nodes)
    roots = np.sqrt([0.0, *(2 * E**2 / (mass + 2 * E) for E in (E_LINE, E_END))])
    half = np.diff(roots)[:, None] / 2
    root = roots[:-1, None] + half * (y + 1)
    return (root**2).ravel(), (2 * root * half * w).ravel()


def flux_moments(T: np.ndarray, mass: float) -> np.ndarray:
    """Integrals of phi(E) E^-k above E_min(T) for nu_mu, nu_e, nubar_mu: shape (3, k = 0..2, recoils)."""
    low = (T + np.sqrt(T**2 + 2 * mass * T)) / 2
    start = np.minimum(low, E_END)

    def power(n):
        return (E_END ** (n + 1) - start ** (n + 1)) / (n + 1)

    line = [(low <= E_LINE) / E_LINE**k for k in range(3)]
    electron = [192 / M_MU**3 * (power(2 - k) / 2 - power(3 - k) / M_MU) for k in range(3)]
    muon = [64 / M_MU**3 * (power(2 - k) * 3 / 4 - power(3 - k) / M_MU) for k in range(3)]
    return np.array([line, electron, muon])


def helm(k: np.ndarray, R: float) -> np.ndarray:
    """Form factor at k = q/(hbar c), of rms radius R."""
    x = k * np.sqrt(5 / 3 * (R**2 - 3 * 0.9**2))
    return 3 * spherical_jn(1, x) / x * np.exp(-((0.9 * k) ** 2) / 2)


def klein_nystrand(k: np.ndarray, R: float | None = None) -> np.ndarray:
    """Form factor with R_A = 1.23 A^(1/3), or of rms radius R; a = 0.7 fm."""
    x = k * (1.23 * (Z + N) ** (1 / 3) if R is None else np.sqrt(5 / 3 * (R**2 - 6 * 0.7**2)))
    return 3 * spherical_jn(1, x) / x / (1 + (0.7 * k) ** 2)


def time_fractions(mean: float = PULSE[0], sigma: float = PULSE[1], edges=TIME_EDGES) -> np.ndarray:
    """Fraction of nu_mu, nu_e, nubar_mu in each time bin, shape (3, 10); the sum over bins is below 1."""
    t = np.asarray(edges, float) - mean

    def cdf(tau):
        return ndtr(t / sigma) - np.exp(sigma**2 / (2 * tau**2) - t / tau + log_ndtr(t / sigma - sigma / tau))

    pion, muon = cdf(TAU_PI), cdf(TAU_MU)
    prompt, delayed = np.diff(pion), np.diff((TAU_MU * muon - TAU_PI * pion) / (TAU_MU - TAU_PI))
    return np.array([prompt, delayed, delayed])


class Signal:
    """CEvNS events in the energy bins (``energies``) and in energy and time (``counts``).

    Args:
        release: of ``load``.
        form_factor: ``helm`` or ``klein-nystrand``.
        couplings: of ``vector_couplings``.
        unity_by: None: the time window holds what is physical (0.867 of the delayed); else the arrivals of each flavour
            are scaled to unity up to this time (6.0: 2211.11905, as we read it).
        nodes: of each of the two pieces of the recoils.
    """

    def __init__(
        self, release, form_factor="helm", couplings="2023", unity_by=None, mass_kg=24.4, protons=13.8e22, nodes=200
    ):
        self.T, weight = recoil_nodes(M, nodes)
        self.k, self.form_factor, self.couplings = np.sqrt(2 * M * self.T) / HBARC, form_factor, couplings
        atoms, flux = 1e3 * mass_kg / ATOMIC_MASS * AVOGADRO, PER_PROTON * protons / (4 * np.pi * BASELINE_CM**2)
        self.exposure, self.moments = atoms * flux * CM2 * weight, flux_moments(self.T, M)
        self.response = self._response(release["efficiency"])
        self.unity_by = unity_by

    def _response(self, table: np.ndarray) -> np.ndarray:
        """Probability of each energy bin, shape (recoils, 12): normal, of width 0.58 sqrt(E_ee), not truncated."""
        T = 1e3 * self.T
        energy = T * (QF[0] + QF[1] * T)
        sigma = RESOLUTION * np.sqrt(energy)
        knots = np.union1d(table[:, 0], ENERGY_EDGES)
        knots = knots[(knots >= 0) & (knots <= 120)]
        at = np.interp(knots, *table.T)
        slope = np.diff(at) / np.diff(knots)
        z = (knots - energy[:, None]) / sigma[:, None]
        steps, density = np.diff(ndtr(z)), np.diff(np.exp(-(z**2) / 2)) / np.sqrt(2 * np.pi)
        pieces = (at[:-1] + slope * (energy[:, None] - knots[:-1])) * steps - slope * sigma[:, None] * density
        return np.add.reduceat(pieces, np.searchsorted(knots, ENERGY_EDGES[:-1]), axis=1)

    def times(self, later: float = 0.0) -> np.ndarray:
        """Fractions of each flux component, with the pulse ``later`` (us)."""
        pulse = PULSE[0] + later, PULSE[1]
        whole = 1.0 if self.unity_by is None else time_fractions(*pulse, edges=[TIME_EDGES[0], self.unity_by])
        return time_fractions(*pulse) / whole

    def by_component(self, sin2_theta_w=SIN2, R_n=None, mu=(0.0, 0.0), eps_u=(0.0, 0.0), eps_d=(0.0, 0.0),
                     g_zprime=0.0, m_zprime=100.0) -> np.ndarray:  # fmt: skip
        """Events at all times, (flux component, energy bin); moments (mu_B) and eps of (e, mu), Z' of B-L (MeV)."""
        if self.form_factor == "helm":
            F_p, F_n = helm(self.k, R_P), helm(self.k, R_N if R_n is None else R_n)
        else:
            F_p, F_n = klein_nystrand(self.k), klein_nystrand(self.k, R_n)
        boson = g_zprime**2 / (np.sqrt(2) * G_FERMI * (2 * M * self.T + m_zprime**2)) * (Z * F_p + N * F_n)
        *protons, neutron = vector_couplings(self.couplings, sin2_theta_w)
        rates = []
        for (zero, one, two), f in zip(self.moments, FLAVOUR, strict=True):
            proton = protons[f] + 2 * eps_u[f] + eps_d[f]
            charge = proton * Z * F_p + (neutron + eps_u[f] + 2 * eps_d[f]) * N * F_n - boson
            rate = G_FERMI**2 * M / np.pi * charge**2 * (zero - M * self.T / 2 * two)
            rates.append(rate + np.pi * (ALPHA * mu[f] / M_E * Z * F_p) ** 2 * (zero / self.T - one))
        return self.exposure * np.array(rates) @ self.response

    def energies(self, **physics) -> np.ndarray:
        """Events of all times in the 12 energy bins."""
        return self.by_component(**physics).sum(axis=0)

    def counts(self, later: float = 0.0, **physics) -> np.ndarray:
        """Events in energy and time, shape (12, 10), with the correlation of the two."""
        return self.by_component(**physics).T @ self.times(later)


def _chi2(r, X, v, nuisances=None) -> tuple[float, np.ndarray]:
    """chi2 and nuisances: those given or the best ones, exactly, as they are linear.

    The last is the normalisation of the delayed BRN, which does not fall below zero.
    """
    if nuisances is None:
        size = X.shape[1]
        A = np.concatenate([X / np.sqrt(v)[:, None], np.eye(size)])
        low = [*[-np.inf] * (size - 1), -1.0]
        nuisances = lsq_linear(A, np.concatenate([r / np.sqrt(v), np.zeros(size)]), (low, np.inf), "bvls", 1e-14).x
    x = np.asarray(nuisances, float)
    return float(np.sum((r - X @ x) ** 2 / v) + x @ x), x


def chi2_2211(release, cevns: np.ndarray, nuisances=None) -> tuple[float, np.ndarray]:
    """chi2 for CEvNS of shape (12, 10), and the nuisances (``SIGMAS_2211``, in sigma): profiled if not given."""
    s = {key: release[key].sum(axis=1) for key in FILES}
    c, b = s["cevns"], s["brn"]

    def shift(varied):  # in proportion to the release's
        return np.divide(varied - c, c, out=np.zeros_like(c), where=c > 0) * cevns

    rows = {
        "signal": cevns,
        "f90": shift(s["cevns_f90_plus"]) + shift(s["cevns_f90_minus"]),
        "timing": shift(s["cevns_time"]),
        "ssb": s["ssb"],
        "brn": b,
        "brn_energy": s["brn_energy_plus"] + s["brn_energy_minus"] - 2 * b,
        "brn_time": s["brn_time_plus"] + s["brn_time_minus"] - 2 * b,
        "brn_width": s["brn_width"] - b,
        "brn_delayed": s["brn_delayed"],
    }
    X = np.array([sigma * rows[name].ravel() for name, sigma in SIGMAS_2211.items()]).T
    variance = s["data"] + s["ssb"] / 5 + (0.017 * (b + s["brn_delayed"])) ** 2
    residual = s["data"] - cevns - s["ssb"] - b - s["brn_delayed"]
    return _chi2(residual.ravel(), X, variance.ravel(), nuisances)


def chi2_1d(release, cevns: np.ndarray, nuisances=None) -> tuple[float, np.ndarray]:
    """chi2 and the nuisances of CEvNS (of all times: ``Signal.energies()``), prompt and delayed BRN."""
    prompt, late = release["brn"].sum(axis=(1, 2)), release["brn_delayed"].sum(axis=(1, 2))
    data, error = release["subtracted"].T
    X = np.array([0.134 * cevns, 0.32 * prompt, 1.0 * late]).T
    return _chi2(data - cevns - prompt - late, X, error**2 + (0.017 * (prompt + late)) ** 2, nuisances)


def deviance(n: np.ndarray, mu: np.ndarray) -> float:
    """Of Poisson counts."""
    mu = np.maximum(mu, 1e-9)
    return float(2 * np.sum(mu - n + xlogy(n, n) - xlogy(n, mu)))


def nll_3d(release, numbers) -> float:
    """-2 ln L against saturation with constraints; numbers of CEvNS (free), prompt BRN, delayed BRN, steady state.

    The errors are those of the other statistics, 32 and 0.79 %. The release says 497 +- 160 and 3152 +- 25: 0.007 less.
    """
    keys = ("cevns", "brn", "brn_delayed", "ssb")
    mu = sum(x * release[key] / release[key].sum() for x, key in zip(numbers, keys, strict=True))
    pulls = (numbers[1] / 497 - 1) / 0.32, numbers[2] / 33 - 1, (numbers[3] / 3152 - 1) / 0.0079
    return deviance(release["data"], mu) + sum(p**2 for p in pulls)


def fit_3d(release) -> Minuit:
    """Minimum of ``nll_3d``."""
    minuit = Minuit(lambda *x: nll_3d(release, x), 128, 497, 33, 3152, name=("cevns", "brn", "brn_delayed", "ssb"))
    minuit.errors, minuit.strategy, minuit.tol = [40, 40, 10, 25], 2, 1e-3
    minuit.limits = [(None, None), (0, None), (-30, None), (0, None)]
    minuit.migrad()
    minuit.hesse()
    return minuit


def code_4p(a: float, nominal: np.ndarray, up: np.ndarray, down: np.ndarray | None = None) -> np.ndarray:
    """What HistFactory's interpolation code 4p adds to a template; a straight line where there is no ``down``."""
    if down is None or a > 1:
        return a * (up - nominal)
    if a < -1:
        return a * (nominal - down)
    return a * ((up - down) / 2 + a * (up + down - 2 * nominal) / 16 * (15 + a**2 * (3 * a**2 - 10)))


def reshaped(nominal: np.ndarray, changes) -> np.ndarray:
    """``nominal`` times the exponentials of interpolated logarithms; changes: (pull, nominal, up[, down]) each."""
    total = nominal.copy()
    for a, *templates in changes:
        known = templates[0] > 0
        floor = 1e-4 * templates[0][known]
        logs = [np.log(np.maximum(t[known], floor)) for t in templates]
        total[known] *= np.exp(code_4p(a, *logs))
    return total


class DefaultLAr:
    """The likelihood ``default``: own signal, spread in F90 as in the release, and backgrounds with their shapes.

    Shapes change in their logarithms, which add up, and keep the number of events (of the signal, at each energy).
    """

    nuisances = (
        "sns_flux", "lar2020_signal", "lar2020_radius", "lar2020_timing", "lar2020_f90", "lar2020_brn",
        "lar2020_brn_energy", "lar2020_brn_time", "lar2020_brn_width", "lar2020_brn_delayed", "lar2020_ssb",
    )  # fmt: skip

    def __init__(self, release):
        self.release, self.signal = release, Signal(release)
        self.f90 = [self._f90(release[f"cevns{side}"]) for side in ("", "_f90_plus", "_f90_minus")]
        self.own = np.sqrt(0.134**2 - 0.02**2 - 0.10**2)
        self.brn = {side: self._brn(release, side) for side in ("", *BRN_SIDES)}

    @staticmethod
    def _f90(template: np.ndarray) -> np.ndarray:
        """Fractions of the events of each energy; the template ends at 50 keVee."""
        events = template.sum(axis=2)
        events[5:] = events[4]
        return events / events.sum(axis=1, keepdims=True)

    @staticmethod
    def _brn(release, side: str) -> np.ndarray:
        """Prompt BRN, with the energies and F90 or the times from the template that was made to vary these."""
        nominal, varied = release["brn"], release[f"brn{side}"]
        cells = (varied if "energy" in side else nominal).sum(axis=2)
        times = (nominal if "energy" in side else varied).sum(axis=(0, 1))
        return nominal.sum() * (cells / cells.sum())[:, :, None] * times / times.sum()

    def expected(self, sin2_theta_w: float = SIN2, **pulls: float) -> dict[str, np.ndarray]:
        """Events of each component, shape (12, 8, 10)."""
        p = {**dict.fromkeys(self.nuisances, 0.0), **pulls}
        radius = R_N * (1 + 0.05 * p["lar2020_radius"])
        counts = self.signal.counts(0.2 * p["lar2020_timing"], sin2_theta_w=sin2_theta_w, R_n=radius)
        counts = counts * (1 + 0.10 * p["sns_flux"] + self.own * p["lar2020_signal"])
        r = self.release
        f90 = reshaped(self.f90[0], [(p["lar2020_f90"], *self.f90)])
        f90 /= f90.sum(axis=1, keepdims=True)
        sides = {"energy": ("_energy_plus", "_energy_minus"), "time": ("_time_plus", "_time_minus")}
        changes = [(p[f"lar2020_brn_{k}"], *(self.brn[s] for s in ("", *v))) for k, v in sides.items()]
        brn = reshaped(self.brn[""], [*changes, (p["lar2020_brn_width"], self.brn[""], self.brn["_width"])])
        return {
            "cevns": counts[:, None, :] * f90[:, :, None],
            "brn": brn * r["brn"].sum() / brn.sum() * (1 + 0.32 * p["lar2020_brn"]),
            "brn_delayed": r["brn_delayed"] * (1 + p["lar2020_brn_delayed"]),
            "ssb": r["ssb"] * (1 + 0.0079 * p["lar2020_ssb"]),
        }

    def chi2(self, sin2_theta_w: float = SIN2, **pulls: float) -> float:
        """Deviance and constraints."""
        mu = sum(self.expected(sin2_theta_w, **pulls).values())
        return deviance(self.release["data"], mu) + sum(p**2 for p in pulls.values())

    def fit(self, *free: str) -> Minuit:
        """Minimum over the nuisances and ``free`` (sin2_theta_w)."""
        names = (*free, *self.nuisances)
        start = [SIN2 if name == "sin2_theta_w" else 0.0 for name in names]
        minuit = Minuit(lambda *x: self.chi2(**dict(zip(names, x, strict=True))), *start, name=names)
        minuit.errors = [0.05 if name == "sin2_theta_w" else 0.5 for name in names]
        minuit.errordef, minuit.strategy, minuit.tol = 1, 2, 1e-3
        minuit.migrad()
        minuit.hesse()
        return minuit
