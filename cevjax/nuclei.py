"""Nuclides and targets: charges, nuclear masses, radii and isotopic mixtures.

Atomic masses: AME2020. Charge radii: Angeli & Marinova 2013. Isotopic abundances: IUPAC 2013. Neutron radii:
shell-model values of arXiv:2303.09360 (Cs, I) and arXiv:2005.01645 (Ar); where none is quoted the proton radius stands
in. Spin expectation values: shell model of arXiv:1304.7684 and the sources there; C13 and W183 have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .constants import ATOMIC_MASS_UNIT, AVOGADRO, M_ELECTRON, NEUTRON_CHARGE_RADIUS2
from .errors import InvalidValueError, check_name


class Spin(NamedTuple):
    """Total spin J, and the expectation values of the proton and the neutron spin in it."""

    J: float
    protons: float
    neutrons: float


@dataclass(frozen=True)
class Nucleus:
    """A nuclide.

    Attributes:
        name: element symbol and mass number, ``Cs133``.
        Z, N: protons, neutrons.
        mass: *nuclear* mass, MeV: the atomic mass less the electrons, plus their binding energy.
        R_p: rms radius of the proton distribution, fm, from the charge radius: R_p^2 = R_c^2 - (N/Z) <r_n^2>.
        R_n: default rms radius of the neutron distribution, fm.
        spin: who carries its spin; None for an even-even nucleus, and where it is not known.

    >>> cs = nucleus("Cs133")
    >>> cs.Z, cs.N, round(cs.mass, 1), round(cs.R_p, 4)
    (55, 78, 123772.8, 4.8212)
    """

    name: str
    Z: int
    N: int
    mass: float
    R_p: float
    R_n: float
    spin: Spin | None = None

    @property
    def A(self) -> int:
        return self.Z + self.N

    @property
    def element(self) -> str:
        return self.name.rstrip("0123456789")


class _Row(NamedTuple):
    symbol: str
    Z: int
    N: int
    atomic_mass: float  # u
    charge_radius: float  # fm
    abundance: float  # per cent of the element
    R_n: float | None = None  # fm


# fmt: off
_TABLE = [
    _Row("C", 6, 6, 12.0, 2.4702, 98.94),
    _Row("C", 6, 7, 13.003354835, 2.4614, 1.06),
    _Row("F", 9, 10, 18.998403162, 2.8976, 100.0),
    _Row("Na", 11, 12, 22.989769282, 2.9936, 100.0),
    _Row("Si", 14, 14, 27.976926534, 3.1224, 92.2545),
    _Row("Si", 14, 15, 28.976494664, 3.1176, 4.672),
    _Row("Si", 14, 16, 29.973770137, 3.1336, 3.0735),
    _Row("Ar", 18, 18, 35.967545106, 3.3905, 0.3336),
    _Row("Ar", 18, 20, 37.962732100, 3.4028, 0.0629),
    _Row("Ar", 18, 22, 39.962383122, 3.4274, 99.6035, 3.55),
    _Row("Ge", 32, 38, 69.924248500, 4.0414, 20.52),
    _Row("Ge", 32, 40, 71.922075820, 4.0576, 27.45),
    _Row("Ge", 32, 41, 72.923458950, 4.0632, 7.76),
    _Row("Ge", 32, 42, 73.921177761, 4.0742, 36.52),
    _Row("Ge", 32, 44, 75.921402725, 4.0811, 7.75),
    _Row("I", 53, 74, 126.904473000, 4.7500, 100.0, 5.03),
    _Row("Xe", 54, 70, 123.905885200, 4.7661, 0.095),
    _Row("Xe", 54, 72, 125.904297422, 4.7722, 0.089),
    _Row("Xe", 54, 74, 127.903530753, 4.7774, 1.910),
    _Row("Xe", 54, 75, 128.904780857, 4.7775, 26.401),
    _Row("Xe", 54, 76, 129.903509347, 4.7818, 4.071),
    _Row("Xe", 54, 77, 130.905084128, 4.7808, 21.232),
    _Row("Xe", 54, 78, 131.904155083, 4.7859, 26.909),
    _Row("Xe", 54, 80, 133.905393030, 4.7899, 10.436),
    _Row("Xe", 54, 82, 135.907214474, 4.7964, 8.857),
    _Row("Cs", 55, 78, 132.905451959, 4.8041, 100.0, 5.09),
    _Row("W", 74, 106, 179.946713300, 5.3491, 0.12),
    _Row("W", 74, 108, 181.948205600, 5.3559, 26.50),
    _Row("W", 74, 109, 182.950224400, 5.3611, 14.31),
    _Row("W", 74, 110, 183.950933200, 5.3658, 30.64),
    _Row("W", 74, 112, 185.954365100, 5.3743, 28.43),
]
_SPINS = {
    "F19": Spin(1 / 2, 0.478, -0.002),
    "Na23": Spin(3 / 2, 0.224, 0.024),
    "Si29": Spin(1 / 2, 0.016, 0.156),
    "Ge73": Spin(9 / 2, 0.031, 0.439),
    "I127": Spin(5 / 2, 0.342, 0.031),
    "Xe129": Spin(1 / 2, 0.010, 0.329),
    "Xe131": Spin(3 / 2, -0.009, -0.272),
    "Cs133": Spin(7 / 2, -0.225, 0.002),
}
# fmt: on


def _nucleus(row: _Row) -> Nucleus:
    binding = 1e-6 * (14.4381 * row.Z**2.39 + 1.55468e-6 * row.Z**5.35)  # of all electrons, MeV (AME2020)
    mass = row.atomic_mass * ATOMIC_MASS_UNIT - row.Z * M_ELECTRON + binding
    R_p = (row.charge_radius**2 - row.N / row.Z * NEUTRON_CHARGE_RADIUS2) ** 0.5
    name, R_n = f"{row.symbol}{row.Z + row.N}", R_p if row.R_n is None else row.R_n
    return Nucleus(name, row.Z, row.N, mass, R_p, R_n, _SPINS.get(name))


NUCLEI: dict[str, Nucleus] = {nuclide.name: nuclide for nuclide in map(_nucleus, _TABLE)}
_ATOMIC_MASS = {f"{row.symbol}{row.Z + row.N}": row.atomic_mass for row in _TABLE}


def nucleus(name: str) -> Nucleus:
    """The nuclide called ``name``, such as ``Cs133`` or ``Ar40``.

    Raises:
        UnknownNameError: no such nuclide; the message offers the nearest.
    """
    return NUCLEI[check_name("nuclide", name, NUCLEI)]


@dataclass(frozen=True)
class Target:
    """A material: nuclides, how many of each a formula unit holds, and its molar mass.

    Attributes:
        name: chemical formula, ``CsI``.
        nuclei: the nuclides.
        numbers: mean number of each a formula unit.
        molar_mass: g/mol.
    """

    name: str
    nuclei: tuple[Nucleus, ...]
    numbers: tuple[float, ...]
    molar_mass: float

    def __post_init__(self) -> None:
        if len(self.nuclei) != len(self.numbers):
            raise InvalidValueError("Arguments `nuclei` and `numbers` of Target must be equally long.")

    def atoms(self, mass_kg: float) -> tuple[float, ...]:
        """Number of nuclei of each nuclide in ``mass_kg`` of the material."""
        units = mass_kg * 1e3 / self.molar_mass * AVOGADRO
        return tuple(units * number for number in self.numbers)


def element(symbol: str) -> Target:
    """An element with its natural isotopic mixture.

    >>> element("Ar").numbers[-1]  # doctest: +ELLIPSIS
    0.9960...
    """
    check_name("element", symbol, {row.symbol for row in _TABLE})
    rows = [row for row in _TABLE if row.symbol == symbol]
    total = sum(row.abundance for row in rows)
    numbers = tuple(row.abundance / total for row in rows)
    molar_mass = sum(n * row.atomic_mass for n, row in zip(numbers, rows, strict=True))
    return Target(symbol, tuple(_nucleus(row) for row in rows), numbers, molar_mass)


def compound(name: str, **composition: float) -> Target:
    """A compound of elements: ``compound("CsI", Cs=1, I=1)``.

    >>> round(compound("CsI", Cs=1, I=1).molar_mass, 2)
    259.81
    """
    parts = [(element(symbol), count) for symbol, count in composition.items()]
    return Target(
        name,
        tuple(nuclide for part, _ in parts for nuclide in part.nuclei),
        tuple(count * number for part, count in parts for number in part.numbers),
        sum(count * part.molar_mass for part, count in parts),
    )


COMPOUNDS = {"CsI": {"Cs": 1, "I": 1}, "NaI": {"Na": 1, "I": 1}, "C3F8": {"C": 3, "F": 8}}


def target(name: str) -> Target:
    """A target by name: a nuclide (``Ar40``), an element (``Ge``) or a known compound (``CsI``, ``NaI``, ``C3F8``).

    Raises:
        UnknownNameError: none of these; the message offers the nearest.
    """
    if name in COMPOUNDS:
        return compound(name, **COMPOUNDS[name])
    if name in NUCLEI:
        return Target(name, (NUCLEI[name],), (1.0,), _ATOMIC_MASS[name])
    symbols = {row.symbol for row in _TABLE}
    check_name("target", name, symbols | set(NUCLEI) | set(COMPOUNDS))
    return element(name)
