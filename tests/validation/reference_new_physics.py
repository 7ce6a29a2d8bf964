"""New physics and electrons in coherent-csi-2021: a second implementation in NumPy and SciPy, without code of cevjax.

It goes beyond :mod:`reference_csi`, of which it takes backgrounds, times, radii and standard-model couplings:

- at a fixed recoil energy every cross section here is quadratic in 1/E, so a flux enters through three moments above
  E_min(T): powers of E, and exponential integrals where it oscillates, all in closed form;
- recoils: composite Gauss-Legendre in sqrt(T) for nuclei and in ln(T) for electrons, for each nuclide on its own grid,
  split at end points, thresholds of massive states and atomic shells;
- response: the density of photo-electrons itself, integrated on dense nodes in each bin at every recoil node.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from reference_csi import (
    ALPHA,
    AVOGADRO,
    CM2,
    E_END,
    E_LINE,
    EFFICIENCY,
    G_FERMI,
    HBARC,
    HELM_S,
    KN_A,
    M_E,
    M_MU,
    M_W,
    NUCLIDES,
    QF,
    RADIUS,
    SIN2,
    TIMING,
    UNIT_MASS,
    ReferenceCsI,
)
from scipy.special import gammaln, sici, spherical_jn

FLAVOURS = ("e", "mu", "tau")
# flavour, antineutrino, and phi(E) = 2^6/m^3 (first E^2 + second E^3/m); None: the line
FLUX = ((1, False, None), (0, False, (3 / 2, -3.0)), (1, True, (3 / 4, -1.0)))

# keV, and electrons in each shell; what is not listed is bound by less
OCCUPANCY = (2, 2, 2, 4, 2, 2, 4, 4, 6, 2, 2, 4, 4, 6, 2, 2, 4)
SHELLS = {
    "Cs133": (35.985, 5.714, 5.359, 5.012, 1.211, 1.071, 1.003, 0.7405, 0.7266, 0.2323, 0.1724, 0.1613, 0.0798, 0.0775,
              0.0227, 0.0142, 0.0121),
    "I127": (33.169, 5.188, 4.852, 4.557, 1.072, 0.931, 0.875, 0.6308, 0.6193, 0.186, 0.123, 0.123, 0.0506, 0.0489),
}  # fmt: skip

# scalar charges of the nucleons: f_q m_N/m_q of 2211.11905, quark masses of PDG 2024
SCALAR_P = 938.27208943 * (0.0208 / 2.16 + 0.0411 / 4.70)
SCALAR_N = 939.56542194 * (0.0189 / 2.16 + 0.0451 / 4.70)

PHOTON = 2 * np.sqrt(2) * np.pi * ALPHA / G_FERMI  # over q^2: millicharges in units of g_V
RADIUS_2 = PHOTON / 6 / CM2  # charge radii
DIPOLE = np.pi * ALPHA**2 / M_E**2
WAVE = 1e-12 / (4 * HBARC * 1e-15)  # 1.267 MeV/(eV^2 m)

NEW = {
    **dict.fromkeys(("mu_nu_e", "mu_nu_mu"), 0.0),
    **{f"q_nu_{a}": 0.0 for a in ("ee", "mumu", "emu", "etau", "mutau")},
    **{f"r2_nu_{a}": None for a in ("ee", "mumu")},  # None: as in the standard model
    **{f"r2_nu_{a}": 0.0 for a in ("emu", "etau", "mutau")},
    **{"m_zprime": 100.0, "g_zprime": 0.0, "m_phi": 100.0, "g_phi": 0.0},
    **{"m_4": 1.0, "mu_nu4_e": 0.0, "mu_nu4_mu": 0.0},
    **{"sin2_2theta_ee": 0.0, "sin2_2theta_mumu": 0.0, "dm2_41": 0.0},
}


def exponential_integral(order: int, y: np.ndarray) -> np.ndarray:
    """E_order(-iy) for y > 0: upwards from order 1, or by the continued fraction where that loses digits."""
    y = np.asarray(y, float)
    near = np.minimum(y, 10.0)
    si, ci = sici(near)
    below = -ci + 1j * (np.pi / 2 - si)
    for n in range(1, order):
        below = (np.exp(1j * near) + 1j * near * below) / n
    z = -1j * np.maximum(y, 10.0)
    fraction = np.zeros_like(z)
    for k in range(80, 0, -1):
        fraction = k * (order + k - 1) / (z + order + 2 * k - fraction)
    return np.where(y < 10.0, below, np.exp(-z) / (z + order - fraction))


def inverse_moments(low: np.ndarray, amplitudes=(0.0, 0.0), omega: float = 0.0) -> np.ndarray:
    """Integrals of phi(E) P(E) E^-k above ``low``, k = 0, 1, 2, with P = 1 - amplitude sin^2(omega/E).

    Shape (flux components, 3, *low.shape).
    """
    low = np.asarray(low, float)
    rows = np.zeros((3, 3, *low.shape))
    for row, (flavour, _, density) in zip(rows, FLUX, strict=True):
        amplitude = amplitudes[flavour]
        for k in range(3):
            if density is None:
                row[k] = (low <= E_LINE) * (1 - amplitude * np.sin(omega / E_LINE) ** 2) / E_LINE**k
                continue
            for power, c in zip((2, 3), density, strict=True):
                n, scale = power - k + 1, 64 * c / M_MU ** (power + 1)
                start = np.minimum(low, E_END)
                whole = (E_END**n - start**n) / n
                row[k] += scale * whole
                if amplitude and omega:  # sin^2 = (1 - cos)/2
                    ends = [E**n * exponential_integral(n + 1, 2 * omega / E).real for E in (E_END, start)]
                    row[k] -= scale * amplitude / 2 * (whole - (ends[0] - ends[1]))
    return rows


def energy_min(T: np.ndarray, M: float, m: float = 0.0) -> np.ndarray:
    return (T + np.sqrt(T**2 + 2 * M * T)) / 2 * (1 + m**2 / (2 * M * T))


def recoil_range(E: float, M: float, m: float = 0.0) -> tuple[float, ...]:
    """Both ends of the recoils that leave a state of mass m, from its energies in the centre of mass."""
    s = M**2 + 2 * M * E
    if np.sqrt(s) < M + m:
        return ()
    before, after = (s - M**2) / (2 * np.sqrt(s)), (s - M**2 + m**2) / (2 * np.sqrt(s))
    p = np.sqrt(max(after**2 - m**2, 0.0))
    # T = -t/(2M)
    return tuple((2 * before * (after - c * p) - m**2) / (2 * M) for c in (1, -1))


def upscattering(T: np.ndarray, M: float, m: float) -> np.ndarray:
    """Coefficients of E^0, E^-1, E^-2 of the bracket of a dipole that leads to a state of mass m."""
    quadratic = m**2 / (2 * T * M)
    return np.array([1 / T, -1 - quadratic, -quadratic * (M - T) / 2 - m**4 * (M - T) / (8 * T**2 * M**2)])


def free_electrons(name: str, T: np.ndarray) -> np.ndarray:
    bound = sum(n * (energy > 1e3 * T) for energy, n in zip(SHELLS[name], OCCUPANCY, strict=False))
    return NUCLIDES[name][0] - bound


class ReferenceNewPhysics(ReferenceCsI):
    """Expected counts and chi2 with electrons as signal, under any of ``NEW``.

    The vector boson has the charges B-L.

    Args:
        statistic: ``default`` or ``2211.11905``.
        fineness: multiplies the number of nodes of every quadrature, to test convergence.

    Attributes:
        exposure: formula units times neutrinos of each flavour through 1 cm^2, in MeV^2.
        masses: of the nuclei, MeV.
    """

    def __init__(self, statistic: str = "default", fineness: float = 1.0):
        super().__init__(statistic, fineness)
        self.quenching_norm = ()
        if statistic == "2211.11905":
            self.signal, self.quenching_norm = (self.signal[0], 0.10), (("csi2021_qf", 0.038),)
            self.names = (*self.names[:2], "csi2021_qf", *self.names[2:])
            self.constrained = (*self.constrained, "csi2021_qf")
            self.limits |= {self.signal[0]: (-10.0, np.inf), "csi2021_qf": (-1 / 0.038, np.inf)}
        self._rule = np.polynomial.legendre.leggauss(int(16 * fineness))
        self._response_rule = np.polynomial.legendre.leggauss(int(24 * fineness))
        detector, beam = self.facts["detector"], self.facts["flux"]
        self._baseline = detector["baseline_m"]
        fluence = beam["per_proton"] * beam["protons_on_target"] / (4 * np.pi * (100 * self._baseline) ** 2)
        self.exposure = detector["mass_kg"] * 1e3 / detector["molar_mass"] * AVOGADRO * fluence * CM2
        self.masses = {
            name: mass * UNIT_MASS - Z * M_E + 14.4381e-6 * Z**2.39 + 1.55468e-12 * Z**5.35
            for name, (Z, _, mass, *_) in NUCLIDES.items()
        }
        for stage in ("_nodes", "_flux_moments", "_probabilities"):
            setattr(self, stage, lru_cache(maxsize=64)(getattr(self, stage)))

    def expected(self, params: dict[str, float]) -> dict[str, np.ndarray]:
        p = self._complete(params)
        times = {**self._times(p.get(TIMING, 0.0)), "ssb": self._ssb_time}
        flux = 1 + self.signal[1] * p[self.signal[0]]
        norms = {"cevns": flux + sum(sigma * p[name] for name, sigma in self.quenching_norm), "es": flux}
        counts = {label: norms[label] * rows.T @ times["cevns"] for label, rows in self.by_component(params).items()}
        for label, sigma in self.norms.items():
            counts[label] = (1 + sigma * p[f"csi2021_{label}"]) * np.outer(self.energy[label], times[label])
        return counts

    def by_component(self, params: dict[str, float]) -> dict[str, np.ndarray]:
        """Events in each PE bin from each component of the flux, shape (3, bins), before norms and times."""
        p = self._complete(params)
        pulls = tuple(p.get(name, 0.0) for name in (*QF, EFFICIENCY))
        massive = p["m_4"] if p["mu_nu4_e"] or p["mu_nu4_mu"] else 0.0
        oscillates = p["sin2_2theta_ee"] or p["sin2_2theta_mumu"]
        grid = massive, WAVE * p["dm2_41"] * self._baseline if oscillates else 0.0
        nuclei = (self._nuclei(name, p, grid) @ self._probabilities(name, grid, *pulls) for name in NUCLIDES)
        electrons = self._electrons(p, grid) @ self._probabilities("electron", grid, *pulls)
        return {"cevns": sum(nuclei), "es": electrons}

    def _complete(self, params: dict[str, float]) -> dict[str, float]:
        p = {**dict.fromkeys(self.names[1:], 0.0), "sin2_theta_w": SIN2, **NEW, **params}
        if unknown := set(p) - set(self.names) - set(NEW):
            raise KeyError(f"unknown parameters {sorted(unknown)}")
        return p

    # --- recoils

    def _nodes(self, name: str, massive: float, omega: float) -> tuple[np.ndarray, np.ndarray]:
        """Recoil energies (MeV) and weights: a panel for every unit of ``panels``, and one at least between kinks."""
        if name == "electron":
            M, low, high, kinks = M_E, 5e-6, 18e-3, [1e-3 * energy for shells in SHELLS.values() for energy in shells]
            to, back, slope = np.log, np.exp, np.exp

            def panels(s):
                return s / 0.3  # whatever oscillates is at higher energies

        else:
            M = self.masses[name]
            low, high, kinks = 4e-4, recoil_range(E_END, M)[1], []
            to, back, slope = np.sqrt, np.square, lambda s: 2 * s

            def panels(s):
                return s / 0.02 - omega / 4 / energy_min(s**2, M)  # up to 8 rad

        for E in (E_LINE, E_END):
            kinks += [*recoil_range(E, M), *(recoil_range(E, M, massive) if massive else ())]
        fixed = to(np.unique([low, *(T for T in kinks if low < T < high), high]))
        dense = np.union1d(np.linspace(*fixed[[0, -1]], 20_001), fixed)
        count = panels(dense)
        cuts = fixed
        for a, b in zip(panels(fixed), panels(fixed[1:]), strict=False):
            cuts = np.union1d(cuts, np.interp(np.linspace(a, b, int(np.ceil(b - a)) + 1)[1:-1], count, dense))
        nodes, weights = self._rule
        half = np.diff(cuts)[:, None] / 2
        s = (cuts[:-1, None] + half * (nodes + 1)).ravel()
        return back(s), (half * weights).ravel() * slope(s)

    def _flux_moments(self, name: str, grid: tuple, outgoing: float, amplitudes: tuple) -> np.ndarray:
        """Moments of the flux on the nodes."""
        T, _ = self._nodes(name, *grid)
        return inverse_moments(energy_min(T, self.masses.get(name, M_E), outgoing), amplitudes, grid[1])

    def _fold(self, name: str, p: dict, grid: tuple, massless: np.ndarray, dipole: np.ndarray) -> np.ndarray:
        """Events at the nodes of each flux component, from coefficients of powers of 1/E: (components, 3, nodes)."""
        _, w = self._nodes(name, *grid)
        amplitudes = p["sin2_2theta_ee"], p["sin2_2theta_mumu"]
        rates = np.sum(massless * self._flux_moments(name, grid, 0.0, amplitudes), axis=1)
        if grid[0]:
            rates = rates + np.sum(dipole * self._flux_moments(name, grid, grid[0], amplitudes), axis=1)
        return self.exposure * w * rates

    def _nuclei(self, name: str, p: dict, grid: tuple) -> np.ndarray:
        T, _ = self._nodes(name, *grid)
        M = self.masses[name]
        q2 = 2 * M * T
        protons, neutrons = self._form_factors(name, np.sqrt(q2) / HBARC, p.get(RADIUS, 0.0))
        proton_e, proton_mu, neutron = self._vector_couplings(p["sin2_theta_w"])
        Q = -self._photon_exchange(p, q2) * protons
        boson = -(p["g_zprime"] ** 2) / (np.sqrt(2) * G_FERMI * (q2 + p["m_zprime"] ** 2)) * (protons + neutrons)
        Q[0, 0] += proton_e * protons + neutron * neutrons + boson
        Q[1, 1] += proton_mu * protons + neutron * neutrons + boson
        weak = G_FERMI**2 * M / np.pi * np.sum(Q**2, axis=1)
        charge = SCALAR_P * protons + SCALAR_N * neutrons
        scalar = M**2 * T / (4 * np.pi) * (p["g_phi"] ** 2 * charge / (q2 + p["m_phi"] ** 2)) ** 2
        zero = 0 * T
        massless, dipole = [], []
        for a, _, _ in FLUX:
            magnetic = DIPOLE * p[f"mu_nu_{FLAVOURS[a]}"] ** 2 * protons**2 * np.array([1 / T, zero - 1, zero])
            massless.append(magnetic + np.array([weak[a], zero, scalar - weak[a] * M * T / 2]))
            dipole.append(DIPOLE * p[f"mu_nu4_{FLAVOURS[a]}"] ** 2 * protons**2 * upscattering(T, M, p["m_4"]))
        return self._fold(name, p, grid, np.array(massless), np.array(dipole))

    def _electrons(self, p: dict, grid: tuple) -> np.ndarray:
        T, _ = self._nodes("electron", *grid)
        number = sum(free_electrons(name, T) for name in NUCLIDES)
        q2 = 2 * M_E * T
        V = self._photon_exchange(p, q2)
        boson = p["g_zprime"] ** 2 / (np.sqrt(2) * G_FERMI * (q2 + p["m_zprime"] ** 2))
        V[0, 0] += 2 * p["sin2_theta_w"] + 0.5 + boson
        V[1, 1] += 2 * p["sin2_theta_w"] - 0.5 + boson
        A = np.array([[0.5, 0, 0], [0, -0.5, 0]])[..., None]
        scalar = M_E**2 * T / (4 * np.pi) * (p["g_phi"] ** 2 / (q2 + p["m_phi"] ** 2)) ** 2
        massless, dipole = [], []
        for a, anti, _ in FLUX:
            axial = -A[a] if anti else A[a]
            left, right = (np.sum((V[a] + sign * axial) ** 2, axis=0) for sign in (1, -1))
            mixed = np.sum(V[a] ** 2 - axial**2, axis=0)
            weak = np.array([left + right, -2 * T * right, T**2 * right - M_E * T * mixed])
            magnetic = DIPOLE * p[f"mu_nu_{FLAVOURS[a]}"] ** 2 * np.array([1 / T, 0 * T - 1, 0 * T])
            exchange = np.array([0 * T, 0 * T, scalar])
            massless.append(number * (G_FERMI**2 * M_E / (2 * np.pi) * weak + magnetic + exchange))
            dipole.append(number * DIPOLE * p[f"mu_nu4_{FLAVOURS[a]}"] ** 2 * upscattering(T, M_E, p["m_4"]))
        return self._fold("electron", p, grid, np.array(massless), np.array(dipole))

    def _photon_exchange(self, p: dict, q2: np.ndarray) -> np.ndarray:
        """Q of incoming e, mu (rows) to outgoing e, mu, tau: minus this on protons, plus on electrons."""
        Q = np.zeros((2, 3, len(q2)))
        for a in range(2):
            for b in range(3):
                entry = FLAVOURS[min(a, b)] + FLAVOURS[max(a, b)]
                Q[a, b] -= PHOTON / q2 * p[f"q_nu_{entry}"]
                if p[f"r2_nu_{entry}"] is not None:
                    Q[a, b] += RADIUS_2 * p[f"r2_nu_{entry}"]
                    if a == b and self.couplings != "tree":  # these hold that of the standard model
                        Q[a, b] += ALPHA / (3 * np.pi) * (np.log(M_W**2 / (M_E, M_MU)[a] ** 2) + 1.5)
        return Q

    def _form_factors(self, name: str, k: np.ndarray, pull: float) -> tuple[np.ndarray, np.ndarray]:
        """Z F_Z and N F_N at k = q/(hbar c)."""
        factor = 1 + self.facts["uncertainties"]["radius"] * pull
        R_p, R_n = self.radii[name]
        if self.form_factor == "helm":
            boxes = [np.sqrt(5 / 3 * (R**2 - 3 * HELM_S**2)) for R in (R_p, factor * R_n)]
            surface = np.exp(-((k * HELM_S) ** 2) / 2)
        else:
            boxes = [factor * np.sqrt(5 / 3 * (R**2 - 6 * KN_A**2)) for R in (R_p, R_n)]
            surface = 1 / (1 + (k * KN_A) ** 2)
        protons, neutrons = (3 * spherical_jn(1, k * box) / (k * box) * surface for box in boxes)
        return NUCLIDES[name][0] * protons, NUCLIDES[name][1] * neutrons

    # --- energy response

    def _probabilities(self, name: str, grid: tuple, qf0: float, qf1: float, efficiency: float) -> np.ndarray:
        """Probability of each PE bin at the recoil nodes, shape (recoils, bins)."""
        T, _ = self._nodes(name, *grid)
        curve = self.facts["quenching"]
        c = np.array(curve["coefficients"]) + np.array([qf0, qf1]) @ np.array(curve["variations"])
        return self.selected(1e3 * (T if name == "electron" else np.polyval([*c[::-1], 0.0], T)), efficiency)

    def selected(self, energy: np.ndarray, pull: float = 0.0) -> np.ndarray:
        """Probability of each PE bin at electron-equivalent energies (keV), shape (energies, bins)."""
        curves, keys = self.facts["efficiency"], self.facts["resolution"]
        nominal, plus, minus = (np.array(curves[key]) for key in ("nominal", "plus", "minus"))
        a, b, c, d = nominal + pull * (plus - minus) / 2 + pull**2 * ((plus + minus) / 2 - nominal)
        start = c - np.log(-a / d - 1) / b if d < 0 < a + d else -np.inf
        low = np.clip(start, self.pe_edges[:-1], self.pe_edges[1:])
        half = (self.pe_edges[1:] - low) / 2
        nodes, weights = self._response_rule
        x = low[:, None] + half[:, None] * (nodes + 1)
        w = half[:, None] * weights * np.maximum(a / (1 + np.exp(-b * (x - c))) + d, 0.0)

        energy = np.maximum(energy, 1e-3)[:, None, None]  # below, nothing passes the threshold
        shape = 1 + keys["beta"] * energy
        rate = keys["alpha"] / energy * shape
        density = np.exp(shape * np.log(rate) - gammaln(shape) + (shape - 1) * np.log(x) - rate * x)
        return np.einsum("kin,in->ki", density, w)
