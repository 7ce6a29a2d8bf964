"""Reactor antineutrinos on germanium in NumPy and SciPy: fluxes, rates, Dresden-II and CONUS+. Imports no cevjax.

An implementation of its own, for comparison: spectra on a fine grid with cumulative sums for the moments, nodes of
Gauss and Legendre over recoils, error functions over the bins. Tables of data and spectra are handed in as arrays.

Units: MeV for neutrino energies and nuclear masses, keV for recoil and ionisation energies.
"""

from itertools import pairwise

import numpy as np
from scipy.optimize import brentq, least_squares, minimize_scalar
from scipy.special import ndtr, spherical_jn

G_F, ALPHA, M_E, HBARC, N_A, U = 1.1663788e-11, 1 / 137.035999177, 0.51099895, 197.3269804, 6.02214076e23, 931.49410372
DAY, S2W, MEV_PER_GJ = 86400.0, 0.23857, 1e9 / 1.602176634e-13
MEV2_CM2 = (HBARC * 1e-13) ** 2
TREE = (0.5 - 2 * S2W, -0.5)  # g_V^p of nu_e, g_V^n
RADIATIVE = (0.0382, -0.5117)
# natural germanium: A, abundance (IUPAC 2013), atomic mass in u, rms charge radius in fm (Angeli & Marinova)
GERMANIUM = [
    (70, 0.2052, 69.924249, 4.0414),
    (72, 0.2745, 71.922076, 4.0576),
    (73, 0.0776, 72.923459, 4.0632),
    (74, 0.3652, 73.921178, 4.0742),
    (76, 0.0775, 75.921403, 4.0811),
]
MOLAR_MASS = sum(w * m for _, w, m, _ in GERMANIUM)
# electrons and binding energies in keV of its shells
SHELLS = [
    (2, 11.103), (2, 1.4146), (2, 1.2481), (4, 1.2170), (2, 0.1801), (2, 0.1249), (4, 0.1208), (4, 0.0298), (6, 0.0292),
    (4, 0.0),
]  # fmt: skip
ISOTOPES = ("U235", "U238", "Pu239", "Pu241")
HEAT = dict(zip(ISOTOPES, (202.36, 205.99, 211.12, 214.26), strict=True))  # MeV
HUBER_MUELLER = {
    "U235": (4.367, -4.577, 2.100, -0.5294, 0.06186, -0.002777),
    "U238": (0.4833, 0.1927, -0.1283, -0.006762, 0.002233, -0.0001536),
    "Pu239": (4.757, -5.392, 2.563, -0.6596, 0.07820, -0.003536),
    "Pu241": (2.990, -2.882, 1.278, -0.3343, 0.03905, -0.001754),
}
DRESDEN_FRACTIONS = dict(zip(ISOTOPES, (0.58, 0.08, 0.29, 0.05), strict=True))
LEIBSTADT_FRACTIONS = dict(zip(ISOTOPES, (0.53, 0.08, 0.32, 0.07), strict=True))


# ------------------------------------------------------------------------------------------------------------- spectra


def density(tables, model, name, energy):
    """Antineutrinos per MeV and fission of one component, up to 10 MeV.

    Args:
        tables: ``vogel_engel`` and ``estienne_fallot`` (E, and a column an isotope), ``kopeikin`` and
            ``neutron_capture`` (E, density).
        model: ``hmve``, ``hmk`` or ``efk``.
        name: an isotope, ``kopeikin`` or ``neutron_capture``.
    """
    energy = np.asarray(energy, float)
    if name not in ISOTOPES:
        x, y = np.vstack([[0.0, 0.0], tables[name]]).T
        return np.interp(energy, x, y, right=0.0)
    column = 1 + ISOTOPES.index(name)
    if model == "efk":
        table = tables["estienne_fallot"]
        high = np.exp(np.interp(energy, table[:, 0], np.log(table[:, column])))
    else:
        high = np.exp(np.polyval(HUBER_MUELLER[name][::-1], energy))
    low = np.zeros_like(energy)
    if model == "hmve":
        x, y = np.vstack([np.zeros(5), tables["vogel_engel"]])[:, [0, column]].T
        low = np.interp(energy, x, y)
    return np.where(energy < 2, low, np.where(energy <= 10, high, 0.0))


def spectrum(tables, model, fractions, captures=True):
    """The sum over all components on a grid: energies, antineutrinos per MeV and fission."""
    nodes = np.concatenate([table[:, 0] for table in tables.values()])
    grid = np.concatenate([np.geomspace(1e-4, 0.05, 600), np.linspace(0.05, 2, 6001), np.linspace(2, 10, 4001)])
    energy = np.unique(np.concatenate([grid, nodes[nodes < 10], nodes[nodes <= 2] * (1 + 1e-12), [2 - 1e-12]]))
    total = sum(fractions[name] * density(tables, model, name, energy) for name in ISOTOPES)
    if model != "hmve" or captures:
        total = total + density(tables, model, "neutron_capture" if model == "hmve" else "kopeikin", energy)
    return energy, total


def per_fission(tables, model, fractions, captures=True):
    """Antineutrinos of all energies."""
    energy, value = spectrum(tables, model, fractions, captures)
    return np.trapezoid(value, energy)


def fissions(power_gw, baseline_m, fractions):
    """Fissions a second over 4 pi L^2, 1/cm^2/s."""
    heat = sum(fractions[name] * HEAT[name] for name in ISOTOPES)
    return power_gw * MEV_PER_GJ / heat / (4 * np.pi * (100 * baseline_m) ** 2)


class Moments:
    """int_Emin^inf phi(E) E^-n dE for n = 0, 1, 2, in 1/cm^2/s/MeV^n."""

    def __init__(self, energy, value, per_cm2_s):
        """``per_cm2_s``: what multiplies the spectrum."""
        self.energy, self.sums = energy, []
        for n in range(3):
            y = per_cm2_s * value / energy**n
            pieces = 0.5 * (y[1:] + y[:-1]) * np.diff(energy)
            self.sums.append(np.append(np.cumsum(pieces[::-1])[::-1], 0.0))

    def __call__(self, n, lowest):
        return np.interp(lowest, self.energy, self.sums[n])


# ------------------------------------------------------------------------------- rates, counts per keV, kg and day


def helm(q, radius, s=0.9):
    """Helm form factor; q in MeV, rms radius in fm."""
    q = np.maximum(q / HBARC, 1e-9)
    x = q * np.sqrt(5 / 3 * (radius**2 - 3 * s**2))
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s) ** 2) / 2)


def cevns(moments, recoil, couplings=RADIATIVE, mu=0.0, eps_u=0.0, eps_d=0.0):
    """Coherent scattering at nuclear recoils in keV; mu in Bohr magnetons."""
    (gp, gn), T, rate = couplings, recoil * 1e-3, 0.0
    gp, gn = gp + 2 * eps_u + eps_d, gn + eps_u + 2 * eps_d
    for A, abundance, atomic, charge_radius in GERMANIUM:
        N = A - 32
        mass = atomic * U - 32 * M_E
        radius = np.sqrt(charge_radius**2 + N / 32 * 0.1161)
        lowest = (T + np.sqrt(T * T + 2 * mass * T)) / 2
        form = helm(np.sqrt(2 * mass * T), radius)
        m0, m1, m2 = (moments(n, lowest) for n in range(3))
        weak = G_F**2 * mass / np.pi * ((gp * 32 + gn * N) * form) ** 2 * (m0 - mass * T / 2 * m2)
        magnetic = np.pi * ALPHA**2 / M_E**2 * (mu * 32 * form) ** 2 * (m0 / T - m1)
        rate = rate + abundance * (weak + magnetic)
    return rate * MEV2_CM2 * N_A / MOLAR_MASS * DAY


def electrons(moments, recoil, mu=0.0):
    """Scattering of antineutrinos on electrons, free above their binding energy, at recoils in keV."""
    T = recoil * 1e-3
    free = sum(number * (recoil >= bound) for number, bound in SHELLS)
    lowest = (T + np.sqrt(T * T + 2 * M_E * T)) / 2
    m0, m1, m2 = (moments(n, lowest) for n in range(3))
    left, right = 2 * S2W, 1 + 2 * S2W  # g_V + g_A and g_V - g_A of antineutrinos, where g_A = -1/2
    weak = left**2 * m0 + right**2 * (m0 - 2 * T * m1 + T * T * m2) - left * right * M_E * T * m2
    rate = G_F**2 * M_E / (2 * np.pi) * weak + np.pi * ALPHA**2 / M_E**2 * mu**2 * (m0 / T - m1)
    return free * rate * MEV2_CM2 * N_A / MOLAR_MASS * DAY


def lindhard(recoil, k=0.162, Z=32):
    """Quenching factor at recoils in keV."""
    eps = 11.5 * Z ** (-7 / 3) * recoil
    g = 3 * eps**0.15 + 0.7 * eps**0.6 + eps
    return k * g / (1 + k * g)


def composite(edges, order):
    """Gauss-Legendre nodes and weights between each two of the edges."""
    x, w = np.polynomial.legendre.leggauss(order)
    parts = [((b - a) / 2 * x + (a + b) / 2, (b - a) / 2 * w) for a, b in pairwise(edges)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


class Detector:
    """Bins of ionisation energy, quenching and a Gaussian resolution of the width that belongs to the true energy.

    ``lowest``: least nuclear recoil that ionises, keV. ``truncated``: energies are never reconstructed below zero.
    """

    def __init__(self, edges, quenching, noise, fano, lowest, per_pair=2.96e-3, truncated=False, highest=2.3):
        self.edges, self.spread, self.truncated = np.asarray(edges), (noise**2, fano * per_pair), truncated
        self.recoil, weight = composite(np.geomspace(lowest, 4.4, 160), 6)
        self.nuclear = self.matrix(quenching(self.recoil) * self.recoil) * weight
        steps = [bound for _, bound in SHELLS if per_pair < bound < highest]
        fine = np.concatenate([np.geomspace(per_pair, 0.1, 40), np.arange(0.1, highest, 0.01), [highest]])
        self.electron, weight = composite(np.unique(np.concatenate([fine, steps])), 4)
        self.electronic = self.matrix(self.electron) * weight

    def matrix(self, energy):
        sigma = np.sqrt(self.spread[0] + self.spread[1] * energy)
        part = np.diff(ndtr((self.edges[:, None] - energy) / sigma), axis=0)
        return part / ndtr(energy / sigma) if self.truncated else part

    def cevns(self, moments, **physics):
        """Counts per kg and day in each bin."""
        return self.nuclear @ cevns(moments, self.recoil, **physics)

    def es(self, moments, mu=0.0):
        return self.electronic @ electrons(moments, self.electron, mu)


# ----------------------------------------------------------------------------------------------------------- Dresden-II

START = (14.06, 66.27, 4.01, 84.58, 1.2923, 0.0694, 0.168)
"""A, B, C, height, energy and width of L1, M/L1."""


def dresden_background(energy, p):
    """A + B exp(-C (E - 0.2)) + L1 + L2 + M: heights h and 0.008 h, and an area of M that is beta times that of L1."""
    a, b, c, height, centre, width, beta = p

    def peak(mean, sigma):
        return np.exp(-0.5 * ((energy - mean) / sigma) ** 2)

    continuum = a + b * np.exp(-c * (energy - 0.2))
    l_peaks = peak(centre, width) + 0.008 * peak(1.142, width)
    return continuum + height * (l_peaks + beta * width / 0.0685 * peak(0.158, 0.0685))


class Dresden:
    """130 bins of 10 eV with a background of seven parameters.

    Args:
        data: E_low, E_high, rate and error of each bin (counts per 10 eV, 3 kg and day).
        curve: recoil energies in keV and quenching factors.
        least: recoil energies below do nothing, keV.
    """

    mass = 2.924

    def __init__(self, data, curve, least, truncated=True):
        self.low, self.high, self.rate, self.error = data.T
        edges = np.append(self.low, self.high[-1])
        self.detector = Detector(
            edges, lambda recoil: np.interp(recoil, *curve.T), 0.0685, 0.11, least, truncated=truncated
        )

    def background(self, p):
        """Averaged over the bins."""
        x, w = np.polynomial.legendre.leggauss(4)
        at = (self.low + self.high)[:, None] / 2 + (self.high - self.low)[:, None] / 2 * x
        return dresden_background(at, p) @ w / 2

    def residuals(self, p, signal):
        return np.append((self.rate - self.background(p) - signal) / self.error, (p[6] - 0.16) / 0.03)

    def fit(self, signal=0.0):
        """Minimum over the background: chi2 and where it lies."""
        found = least_squares(self.residuals, START, args=(signal,), x_scale=START, xtol=1e-12, ftol=1e-12, gtol=1e-12)
        return 2 * found.cost, found.x

    def signal(self, moments, es=False, mu=0.0, **physics):
        kg_day = self.detector.cevns(moments, mu=mu, **physics) + (self.detector.es(moments, mu) if es else 0.0)
        return self.mass * kg_day

    def mu_limit(self, moments, es, delta=2.705543):
        """Upper end for |mu_nu_e|, in Bohr magnetons."""
        standard = self.signal(moments, es)
        slope = self.signal(moments, es, mu=1e-10) - standard
        _, _, roots = scan(lambda m2: self.fit(standard + m2 * slope)[0], np.linspace(0, 40, 15), delta)
        return 1e-10 * np.sqrt(roots[-1])


# --------------------------------------------------------------------------------------------------------------- CONUS+


class Conus:
    """19 bins of 10 eV, excess per kg in 119 days, with one normalisation of 16.9 %."""

    days, sigma = 119.0, 0.169

    def __init__(self, data, lowest):
        self.excess, self.error = data[:, 2], data[:, 3]
        edges = np.append(data[:, 0], data[-1, 1])
        self.detector = Detector(edges, lindhard, 0.02038, 0.1096, lowest, highest=0.7)

    def signal(self, moments, **physics):
        return self.days * self.detector.cevns(moments, **physics)

    def chi2(self, signal):
        """Minimum over the normalisation, in closed form."""
        information = np.sum((signal / self.error) ** 2) + self.sigma**-2
        a = np.sum((self.excess - signal) * signal / self.error**2) / information
        return np.sum(((self.excess - (1 + a) * signal) / self.error) ** 2) + (a / self.sigma) ** 2

    def eps_d_intervals(self, moments, delta=1.0):
        """One-sigma ends of eps^dV_ee: (best fit, chi2 there, ends)."""

        def chi2(eps):
            return self.chi2(self.signal(moments, eps_d=eps))

        return scan(chi2, np.linspace(-0.15, 0.5, 66), delta)


def scan(chi2, grid, delta):
    """Minimum on the range of a grid, and where chi2 crosses minimum + delta: (x, minimum, crossings)."""
    values = np.array([chi2(x) for x in grid])
    padded = np.concatenate([[np.inf], values, [np.inf]])
    points = list(zip(values, grid, strict=True))
    for i in np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:])):  # a range may hold several minima
        bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
        width = 1e-7 * (bounds[1] - bounds[0])
        found = minimize_scalar(chi2, bounds=bounds, method="bounded", options={"xatol": width})
        points.append((found.fun, found.x))
    least, x = min(points)
    excess = values - least - delta
    roots = [
        brentq(lambda y: chi2(y) - least - delta, a, b)
        for a, b, fa, fb in zip(grid[:-1], grid[1:], excess[:-1], excess[1:], strict=True)
        if fa * fb < 0
    ]
    return x, least, roots
