"""A second implementation of the likelihood of coherent-csi-2021, in NumPy and SciPy: it shares no code with cevjax.

It reads the same embedded numbers and follows the same definitions by other numerics:

- flux moments: the Michel spectra integrated in closed form, not by quadrature;
- recoils: Gauss-Legendre in sqrt(T), for each nuclide and end point on its own grid;
- resolution: integrated by parts, so that only the incomplete gamma function and the slope of the efficiency enter;
  tabulated in sqrt(E_ee), where the resolution has constant width, and interpolated by a quintic spline;
- arrival times: quadrature of density times efficiency, for the pulse as for the templates.

Every stage is cached by the parameters that it depends on.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.special import gammaincc, log_ndtr, spherical_jn, xlogy

FOLDER = Path(__file__).resolve().parents[2] / "data" / "coherent-csi-2021"

# MeV, fm, microseconds (CODATA 2022, PDG 2024)
G_FERMI = 1.1663788e-11
ALPHA = 1 / 137.035999177
HBARC = 197.3269804
M_E, M_MU, M_PI, M_W = 0.51099895069, 105.6583755, 139.57039, 80369.2
UNIT_MASS = 931.49410372
AVOGADRO = 6.02214076e23
TAU_PI, TAU_MU = 0.026033, 2.1969811
CM2 = (HBARC * 1e-13) ** 2
SIN2 = 0.23857

# Z, N, atomic mass (u), charge radius (fm), theory rms radius of the neutrons (fm)
NUCLIDES = {"Cs133": (55, 78, 132.905451959, 4.8041, 5.09), "I127": (53, 74, 126.904473, 4.75, 5.03)}
NEUTRON_R2 = -0.1161
HELM_S, KN_A, KN_R0 = 0.9, 0.7, 1.23

E_LINE = (M_PI**2 - M_MU**2) / (2 * M_PI)
E_END = M_MU / 2
TIME_EDGES = np.array([0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 2, 4, 6])

SIGNAL_12, SIGNAL_11, FLUX_10 = ("csi2021_signal", 0.12), ("csi2021_signal", 0.11), ("sns_flux", 0.10)
QF = ("csi2021_qf0", "csi2021_qf1")
EFFICIENCY, TIMING, RADIUS = "csi2021_efficiency", "csi2021_timing", "csi2021_radius"
STATISTICS = {  # normalisation of the signal, constrained shape pulls, free shape parameters, form factor and couplings
    "default": (FLUX_10, (*QF, EFFICIENCY, TIMING, RADIUS), (), "helm", "2023"),
    "2211.11905": (SIGNAL_11, (RADIUS,), (), "klein-nystrand", "tree"),
    "2211.11905-shape": (SIGNAL_11, (RADIUS,), (EFFICIENCY, TIMING), "klein-nystrand", "tree"),
    "2303.09360": (SIGNAL_12, (), (), "helm", "2023"),
}


def _smoothed(centres: np.ndarray, content: np.ndarray):
    """Density of a histogram whose bins are spread by the cardinal cubic B-spline, written out."""
    step = centres[1] - centres[0]
    padded = np.pad(content, ((3, 3), (0, 0)))

    def density(t: np.ndarray) -> np.ndarray:
        position = (t - centres[0]) / step
        low = np.floor(position).astype(int)
        total = np.zeros((len(t), content.shape[1]))
        for k in range(-1, 3):
            u = np.abs(position - low - k)
            weight = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6)
            total += padded[np.clip(low + k + 3, 0, len(padded) - 1)] * weight[:, None]
        return total / step

    return density


class ReferenceCsI:
    """Expected counts and chi2 under one statistic.

    Args:
        statistic: ``default``, ``2211.11905``, ``2211.11905-shape`` or ``2303.09360``.
        fineness: multiplies the number of nodes of every quadrature and table, to test convergence.

    Attributes:
        names: sin2_theta_w, then the nuisances.
        optional: further parameters with their defaults; ``R_n_CsI`` replaces the neutron radii of both nuclides.
        constrained: nuisances with a unit constraint.
        limits: of the nuisances.
    """

    def __init__(self, statistic: str = "default", fineness: float = 1.0):
        self.signal, pulls, free, self.form_factor, self.couplings = STATISTICS[statistic]
        with open(FOLDER / "measurement.toml", "rb") as file:
            self.facts = tomllib.load(file)
        self.observed = np.loadtxt(FOLDER / "counts.csv", delimiter=",")
        energy = np.loadtxt(FOLDER / "energy.csv", delimiter=",")
        self.pe_edges = np.append(energy[:, 0], energy[-1, 1])
        backgrounds = self.facts["backgrounds"]
        self.norms = {label: backgrounds[label]["relative_error"] for label in ("ssb", "brn", "nin")}
        shapes = dict(zip(("ssb", "brn", "nin"), energy[:, 2:].T, strict=True))
        shapes["ssb"] = shapes["ssb"] / shapes["ssb"].sum()
        self.energy = {label: backgrounds[label]["total"] * shape for label, shape in shapes.items()}

        order = ("csi2021_qf0", "csi2021_qf1", EFFICIENCY, TIMING, RADIUS)
        shape_pulls = tuple(name for name in order if name in (*pulls, *free))
        norm_pulls = tuple(f"csi2021_{label}" for label in self.norms)
        self.names = ("sin2_theta_w", self.signal[0], *shape_pulls, *norm_pulls)
        self.constrained = tuple(name for name in self.names[1:] if name not in free)
        self.limits = dict.fromkeys(free, (-1.0, 1.0)) | dict.fromkeys(pulls, (-5.0, 5.0))
        self.limits |= {f"csi2021_{label}": (-1 / sigma, np.inf) for label, sigma in self.norms.items()}
        self.limits |= {self.signal[0]: (-1 / self.signal[1], np.inf)}
        self.radii = {name: self._radii(name) for name in NUCLIDES}
        self.optional = {f"R_n_{name}": radii[1] for name, radii in self.radii.items()}
        self.optional |= {"R_n_CsI": None, "eps_uV_ee": 0.0, "eps_dV_ee": 0.0}

        self._n_line, self._n_continuum = int(64 * fineness), int(128 * fineness)
        self._leggauss = np.polynomial.legendre.leggauss(int(16 * fineness))
        self._leggauss_time = np.polynomial.legendre.leggauss(int(10 * fineness))
        self._root_energy = np.linspace(0.05, 3.0, int(296 * fineness))  # sqrt(keVee)
        self._survival_known: dict[float, np.ndarray] = {}
        self._set_up_recoils()
        self._set_up_times()
        t = self.facts["efficiency"]["time_rate"] * np.append(TIME_EDGES, backgrounds["region_us"])
        self._ssb_time = (np.exp(-t[:-2]) - np.exp(-t[1:-1])) / -np.expm1(-t[-1])
        n = self.observed
        self._saturated = np.sum(xlogy(n, n) - n)
        for stage in ("_selection", "_response", "_charges", "_by_component", "_times", "_signal"):
            setattr(self, stage, lru_cache(maxsize=32)(getattr(self, stage)))

    # --- what users call

    def expected(self, params: dict[str, float]) -> dict[str, np.ndarray]:
        """Expected counts of each component, shape (PE, time)."""
        p = {**dict.fromkeys(self.names[1:], 0.0), "sin2_theta_w": SIN2, **self.optional, **params}
        unknown = set(p) - set(self.names) - set(self.optional)
        if unknown:
            raise KeyError(f"unknown parameters {sorted(unknown)}")
        shape = tuple(p.get(name, 0.0) for name in (*QF, EFFICIENCY))
        common = p["R_n_CsI"]
        radii = tuple(p[f"R_n_{name}"] if common is None else common for name in NUCLIDES)
        coupling = (p["sin2_theta_w"], p["eps_uV_ee"], p["eps_dV_ee"])
        timing = p.get(TIMING, 0.0)
        cevns = self._signal(shape, (p.get(RADIUS, 0.0), *radii), coupling, timing)
        times = {**self._times(timing), "ssb": self._ssb_time}
        counts = {"cevns": (1 + self.signal[1] * p[self.signal[0]]) * cevns}
        for label, sigma in self.norms.items():
            counts[label] = (1 + sigma * p[f"csi2021_{label}"]) * np.outer(self.energy[label], times[label])
        return counts

    def chi2(self, params: dict[str, float]) -> float:
        """Poisson deviance and constraints."""
        mu = sum(self.expected(params).values())
        deviance = 2 * (self._saturated + np.sum(mu - self.observed * np.log(np.maximum(mu, 1e-9))))
        return float(deviance + sum(params.get(name, 0.0) ** 2 for name in self.constrained))

    # --- recoils and cross section

    def _radii(self, name: str) -> tuple[float, float]:
        Z, N, _, charge_radius, R_n = NUCLIDES[name]
        if self.form_factor == "helm":
            return np.sqrt(charge_radius**2 - N / Z * NEUTRON_R2), R_n
        box = KN_R0 * (Z + N) ** (1 / 3)
        radius = np.sqrt(0.6 * box**2 + 6 * KN_A**2)
        return radius, radius

    def _set_up_recoils(self) -> None:
        """Blocks of recoil nodes: each nuclide up to the end point of the line, and up to that of the continua."""
        detector, beam = self.facts["detector"], self.facts["flux"]
        formula_units = detector["mass_kg"] * 1e3 / detector["molar_mass"] * AVOGADRO
        fluence = beam["per_proton"] * beam["protons_on_target"] / (4 * np.pi * (100 * detector["baseline_m"]) ** 2)
        recoil, rates, self._blocks = [], [], []
        for name, (Z, _, atomic_mass, *_) in NUCLIDES.items():
            binding = 14.4381e-6 * Z**2.39 + 1.55468e-12 * Z**5.35
            M = atomic_mass * UNIT_MASS - Z * M_E + binding
            scale = formula_units * fluence * G_FERMI**2 / np.pi * CM2 * M
            for E_max, n in ((E_LINE, self._n_line), (E_END, self._n_continuum)):
                y, w = np.polynomial.legendre.leggauss(n)
                root = np.sqrt(2 * E_max**2 / (M + 2 * E_max)) / 2
                T, weight = (root * (y + 1)) ** 2, 2 * root**2 * (y + 1) * w
                prompt, electron, muon = self._moments(T, M)
                pair = (prompt, 0 * T) if E_max == E_LINE else (muon, electron)
                rates.append(scale * weight * np.array(pair))
                self._blocks.append((name, slice(sum(map(len, recoil)), sum(map(len, recoil)) + n), np.sqrt(2 * M * T)))
                recoil.append(T)
        self._recoil = np.concatenate(recoil)
        muonic, electronic = np.concatenate(rates, axis=1)
        line = np.concatenate([np.full(len(T), k % 2 == 0) for k, T in enumerate(recoil)])
        self._rates = np.array([muonic * line, electronic, muonic * ~line])  # nu_mu, nu_e, nubar_mu

    @staticmethod
    def _moments(T: np.ndarray, M: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Integrals of phi(E) (1 - MT/(2 E^2)) above E_min, for nu_mu, nu_e and nubar_mu."""
        low = (T + np.sqrt(T**2 + 2 * M * T)) / 2
        half = M * T / 2
        prompt = np.where(low <= E_LINE, 1 - half / E_LINE**2, 0.0)

        def electron(E):  # antiderivative of 192/m^3 (E^2 - half) (1/2 - E/m)
            return 192 / M_MU**3 * (E**3 / 6 - E**4 / (4 * M_MU) - half * (E / 2 - E**2 / (2 * M_MU)))

        def muon(E):  # of 64/m^3 (E^2 - half) (3/4 - E/m)
            return 64 / M_MU**3 * (E**3 / 4 - E**4 / (4 * M_MU) - half * (3 * E / 4 - E**2 / (2 * M_MU)))

        low = np.minimum(low, E_END)
        return prompt, electron(E_END) - electron(low), muon(E_END) - muon(low)

    def _charges(self, pull: float, *R_n: float) -> tuple[np.ndarray, np.ndarray]:
        """Z F_Z and N F_N on the recoil nodes."""
        factor = 1 + self.facts["uncertainties"]["radius"] * pull
        protons, neutrons = np.empty((2, len(self._recoil)))
        for name, block, q in self._blocks:
            Z, N = NUCLIDES[name][:2]
            R_p, radius = self.radii[name][0], dict(zip(NUCLIDES, R_n, strict=True))[name]
            k = q / HBARC
            if self.form_factor == "helm":
                boxes = np.sqrt(5 / 3 * (np.array([R_p, factor * radius]) ** 2 - 3 * HELM_S**2))
                surface = np.exp(-((k * HELM_S) ** 2) / 2)
            else:
                boxes = factor * np.sqrt(5 / 3 * (np.array([R_p, radius]) ** 2 - 6 * KN_A**2))
                surface = 1 / (1 + (k * KN_A) ** 2)
            x = np.outer(boxes, k)
            protons[block], neutrons[block] = np.array([[Z], [N]]) * 3 * spherical_jn(1, x) / x * surface
        return protons, neutrons

    def _vector_couplings(self, s2w: float) -> tuple[float, float, float]:
        """g_V^p of electron and muon flavour, g_V^n."""
        if self.couplings == "tree":
            return 0.5 - 2 * s2w, 0.5 - 2 * s2w, -0.5
        rho, a_z, sz, a_w, a_s = 1.00063, 1 / 127.952, 0.23122, 0.123, 0.118
        crossed = -a_z / (2 * np.pi * sz) * (1 - a_w / (2 * np.pi))
        ww = a_z / (8 * np.pi * sz) * (1 + a_w / np.pi)
        zz = -3 * a_z / (8 * np.pi * sz * (1 - sz)) * (1 - a_s / np.pi)
        up = zz * ((1 / 2 - 2 / 3 * sz) ** 2 - (2 / 3 * sz) ** 2)
        down = zz * ((1 / 2 - 1 / 3 * sz) ** 2 - (1 / 3 * sz) ** 2)
        radius = [ALPHA / (3 * np.pi) * (np.log(M_W**2 / m**2) + 1.5) for m in (M_E, M_MU)]
        proton = rho * (0.5 - 2 * s2w + 2 * up + down) + 2 * ww + crossed
        return proton + radius[0], proton + radius[1], rho * (2 * down + up - 0.5) + 2 * crossed + ww

    # --- energy response

    def _selection(self, pull: float):
        """Spline of the probabilities to be selected in each PE bin, over sqrt(E_ee / keV)."""
        curves = self.facts["efficiency"]
        nominal, plus, minus = (np.array(curves[key]) for key in ("nominal", "plus", "minus"))
        # the parabola through the three sets, in Lagrange's form
        a, b, c, d = (1 - pull**2) * nominal + pull * (pull + 1) / 2 * plus + pull * (pull - 1) / 2 * minus
        start = c - np.log(-a / d - 1) / b if d < 0 < a + d else -np.inf

        def efficiency(x):
            return np.maximum(a / (1 + np.exp(-b * (x - c))) + d, 0.0)

        low = np.clip(start, self.pe_edges[:-1], self.pe_edges[1:])
        half = (self.pe_edges[1:] - low) / 2
        nodes, weights = self._leggauss
        x = low[:, None] + half[:, None] * (nodes + 1)
        rise = np.exp(-b * (x - c))
        slope = half[:, None] * weights * a * b * rise / (1 + rise) ** 2
        # int eff p dx = eff(low) S(low) - eff(high) S(high) + int eff' S dx with the survival function S
        table = np.einsum("im,imk->ik", slope, self._survival(x))
        ends = np.stack([low, self.pe_edges[1:]])
        above = efficiency(ends)
        above[0, low == start] = 0.0
        survival = self._survival(ends)
        table += above[0][:, None] * survival[0] - above[1][:, None] * survival[1]
        return make_interp_spline(self._root_energy, table.T, k=5)

    def _survival(self, x: np.ndarray) -> np.ndarray:
        """P(more than x photo-electrons) at the tabulated energies, shape (*x.shape, energies)."""
        keys = self.facts["resolution"]
        energy = self._root_energy**2
        shape = 1 + keys["beta"] * energy
        rate = keys["alpha"] / energy * shape
        rows = []
        for value in x.ravel():  # all but those of the bin with the threshold come again for every efficiency
            if value not in self._survival_known:
                if len(self._survival_known) > 2000:
                    self._survival_known.clear()
                self._survival_known[value] = gammaincc(shape, rate * value)
            rows.append(self._survival_known[value])
        return np.array(rows).reshape(*x.shape, -1)

    def _response(self, qf0: float, qf1: float, efficiency: float) -> np.ndarray:
        """Probability of each PE bin at the recoil nodes, shape (recoils, bins)."""
        curve = self.facts["quenching"]
        c = np.array(curve["coefficients"]) + np.array([qf0, qf1]) @ np.array(curve["variations"])
        energy = 1e3 * np.polyval([*c[::-1], 0.0], self._recoil)
        root = np.sqrt(np.maximum(energy, 0.0))
        if root.max() > self._root_energy[-1]:
            raise ValueError("quenching leaves the table")
        inside = root >= self._root_energy[0]  # below, nothing passes the threshold
        return np.where(inside[:, None], self._selection(efficiency)(np.where(inside, root, 1.0)), 0.0)

    def _by_component(self, shape: tuple, radii: tuple, coupling: tuple) -> np.ndarray:
        """Selected events of each PE bin from each flux component, shape (bins, 3)."""
        s2w, up, down = coupling
        protons, neutrons = self._charges(*radii)
        proton_e, proton_mu, neutron = self._vector_couplings(s2w)
        muon = (proton_mu * protons + neutron * neutrons) ** 2
        electron = ((proton_e + 2 * up + down) * protons + (neutron + up + 2 * down) * neutrons) ** 2
        return self._response(*shape).T @ (self._rates * np.array([muon, electron, muon])).T

    def _signal(self, shape: tuple, radii: tuple, coupling: tuple, timing: float) -> np.ndarray:
        return self._by_component(shape, radii, coupling) @ self._times(timing)["cevns"]

    # --- times

    def _set_up_times(self) -> None:
        table = np.loadtxt(FOLDER / "time.csv", delimiter=",")
        knots = table[:, 0]
        content = np.diff(table[:, 1:], axis=0)
        centres = (knots[1:] + knots[:-1]) / 2
        self._breaks = centres  # where the pieces of the splines meet
        self._template = _smoothed(centres, content)
        start = self.facts["efficiency"]["time_start"]
        fixed = np.union1d(np.arange(0, 6.001, 0.125), [start])  # no panel is wide against the pulse
        self._pulse_nodes = self._panels(np.round(fixed, 12))

    def _panels(self, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, weights times efficiency, and the first node of each time bin, for panels between ``cuts``."""
        nodes, weights = self._leggauss_time
        keys = self.facts["efficiency"]
        half = np.diff(cuts)[:, None] / 2
        t = (cuts[:-1, None] + half * (nodes + 1)).ravel()
        w = (half * weights).ravel() * np.exp(-keys["time_rate"] * np.maximum(t - keys["time_start"], 0.0))
        return t, w, len(nodes) * np.searchsorted(cuts, TIME_EDGES[:-1])

    def _times(self, pull: float) -> dict[str, np.ndarray]:
        """Recorded fractions of each time bin: ``cevns``, shape (3, bins), and those of the templates."""
        offset = self.facts["uncertainties"]["timing_us"] * pull
        t, w, first = self._pulse_nodes
        prompt, delayed = np.add.reduceat(self._pulse_densities(t - offset) * w, first, axis=1)

        knots = self._breaks + offset
        cuts = np.union1d(knots[(knots > 0) & (knots < 6)], TIME_EDGES)
        t, w, first = self._panels(np.union1d(cuts, self.facts["efficiency"]["time_start"]))
        shifted = t - offset
        density = self._template(shifted)
        brn, nin = np.add.reduceat(density.T * w, first, axis=1)
        return {"cevns": np.array([prompt, delayed, delayed]), "brn": brn, "nin": nin}

    def _pulse_densities(self, t: np.ndarray) -> np.ndarray:
        """Densities in time after pion decay, and after pion and muon decay."""
        beam = self.facts["flux"]
        mean, sigma = beam["pulse_mean_us"], beam["pulse_sigma_us"]
        late = t - mean

        def decay(tau):  # exponentially modified Gaussian times tau
            return np.exp(sigma**2 / (2 * tau**2) - late / tau + log_ndtr(late / sigma - sigma / tau))

        pion, muon = decay(TAU_PI), decay(TAU_MU)
        return np.array([pion / TAU_PI, (muon - pion) / (TAU_MU - TAU_PI)])
