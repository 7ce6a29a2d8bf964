"""Nuclides and targets against published masses, radii, atomic weights and abundances."""

import numpy as np
import pytest

from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.nuclei import NUCLEI, Target, compound, element, nucleus, target

U = 931.49410372
# mass excesses (keV, AME2020) and total electron binding energies (keV, relativistic Hartree-Fock)
MASSES = {
    "C12": (0.0, 1.03),
    "F19": (-1487.44, 2.7),
    "Na23": (-9529.85, 4.4),
    "Si28": (-21492.79, 7.9),
    "Ar40": (-35040.09, 14.4),
    "Ge70": (-70561.95, 56.5),
    "Ge74": (-73422.44, 56.5),
    "I127": (-88984.0, 193.0),
    "Xe132": (-89278.96, 202.3),
    "Cs133": (-88070.94, 211.9),
}
# sqrt(R_c^2 + 0.1161 N/Z) as the Cagliari-Torino group prints it
PROTON_RADII = {
    "Cs133": 4.8212,
    "I127": 4.7670,
    "Ar40": 3.4480,
    "Ge70": 4.0584,
    "Ge72": 4.0754,
    "Ge73": 4.0815,
    "Ge74": 4.0929,
    "Ge76": 4.1006,
    "Xe132": 4.8034,
    "Si28": 3.1409,
}
ATOMIC_WEIGHTS = {
    "F": 18.9984,
    "Na": 22.9898,
    "Si": 28.085,
    "Ar": 39.948,
    "Ge": 72.630,
    "I": 126.9045,
    "Xe": 131.293,
    "Cs": 132.9055,
    "W": 183.84,
    "CsI": 259.810,
    "NaI": 149.894,
}


@pytest.mark.parametrize("name", MASSES)
def test_nuclear_mass(name):
    nuclide, (excess, binding) = nucleus(name), MASSES[name]
    truth = nuclide.A * U + 1e-3 * excess - nuclide.Z * 0.51099895 + 1e-3 * binding
    assert abs(nuclide.mass - truth) < 0.002  # MeV; an atomic mass would be off by Z m_e > 3 MeV


@pytest.mark.parametrize("name", PROTON_RADII)
def test_proton_radius(name):
    assert abs(nucleus(name).R_p - PROTON_RADII[name]) < 6e-5


def test_theory_neutron_radii():
    assert [nucleus(n).R_n for n in ("Cs133", "I127", "Ar40")] == [5.09, 5.03, 3.55]
    assert nucleus("Ge74").R_n == nucleus("Ge74").R_p


@pytest.mark.parametrize("name", sorted(NUCLEI))
def test_table_is_consistent(name):
    nuclide = NUCLEI[name]
    assert name == nuclide.name
    assert int("".join(c for c in name if c.isdigit())) == nuclide.A
    assert 0.9985 < nuclide.mass / (nuclide.A * U) < 1.0001
    assert 0.75 < nuclide.R_p / nuclide.A ** (1 / 3) < 1.15


@pytest.mark.parametrize("name", ATOMIC_WEIGHTS)
def test_molar_mass(name):
    assert target(name).molar_mass == pytest.approx(ATOMIC_WEIGHTS[name], rel=5e-5)


def test_natural_abundances():
    germanium = element("Ge")
    assert [n.A for n in germanium.nuclei] == [70, 72, 73, 74, 76]
    np.testing.assert_allclose(germanium.numbers, [0.2052, 0.2745, 0.0776, 0.3652, 0.0775], atol=5e-5)
    for symbol in ("C", "F", "Na", "Si", "Ar", "Ge", "I", "Xe", "Cs", "W"):
        assert sum(element(symbol).numbers) == pytest.approx(1, abs=1e-14)


def test_atoms_in_a_mass():
    # 14.6 kg of CsI: 14600 / 259.81 formula units in mol
    np.testing.assert_allclose(target("CsI").atoms(14.6), [14600 / 259.81 * 6.02214076e23] * 2, rtol=1e-5)
    carbon12, carbon13, fluorine = target("C3F8").atoms(1.0)
    assert fluorine / (carbon12 + carbon13) == pytest.approx(8 / 3, rel=1e-14)
    assert target("C").molar_mass == pytest.approx(12.011, abs=1e-3)
    assert target("W").molar_mass == pytest.approx(183.84, abs=1e-2)
    argon = target("Ar")
    assert sum(argon.atoms(2.0)) == pytest.approx(2000 / 39.948 * 6.02214076e23, rel=2e-5)


def test_targets_by_name():
    assert target("Ar40").nuclei == (nucleus("Ar40"),)
    assert target("Ar40").molar_mass == pytest.approx(39.9624, rel=1e-5)
    assert target("CsI") == compound("CsI", Cs=1, I=1)
    assert target("Xe") == element("Xe")


@pytest.mark.parametrize(
    ("call", "name", "nearest"), [(nucleus, "Cs134", "Cs133"), (target, "CsII", "CsI"), (element, "GE", "Ge")]
)
def test_unknown_names_offer_the_nearest(call, name, nearest):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{nearest}'"):
        call(name)


def test_target_needs_a_number_for_each_nuclide():
    with pytest.raises(InvalidValueError, match="equally long"):
        Target("X", (nucleus("Cs133"),), (1.0, 1.0), 100.0)
