"""Physical constants, in one unit system: MeV, fm, s and cm^2.

Sources: CODATA 2022 (``ALPHA``, ``HBARC``, ``ATOMIC_MASS_UNIT``, ``AVOGADRO``), PDG 2024 (``G_F`` and the
particle masses), Erler & Ramsey-Musolf hep-ph/0409169 and arXiv:1712.09146 (``SIN2_THETA_W``).
"""

G_F = 1.1663788e-11
"""Fermi constant, MeV^-2."""
ALPHA = 1 / 137.035999177
"""Fine-structure constant at zero momentum transfer."""
SIN2_THETA_W = 0.23857
"""Weak mixing angle sin^2 theta_W at q -> 0 in the MS-bar scheme (+- 0.00005)."""
SIN2_THETA_W_MZ = 0.23122
"""The same at the Z mass, where the radiative corrections are evaluated."""

HBARC = 197.3269804
"""hbar c, MeV fm."""
MEV2_TO_CM2 = (HBARC * 1e-13) ** 2
"""(hbar c)^2: multiplies a cross section in MeV^-2 to give cm^2."""

M_ELECTRON = 0.51099895069
M_MUON = 105.6583755
M_TAU = 1776.93
M_PION = 139.57039
"""Charged-pion mass, MeV."""
M_W = 80369.2
M_PROTON = 938.27208943
M_NEUTRON = 939.56542194
AXIAL_CHARGE = 1.2756
"""g_A of the nucleon, from neutron decay (PDG 2024)."""
ATOMIC_MASS_UNIT = 931.49410372
"""MeV."""

AVOGADRO = 6.02214076e23
NEUTRON_CHARGE_RADIUS2 = -0.1161
"""Mean-square charge radius of the neutron, fm^2 (PDG)."""

TAU_PION = 0.026033
"""Charged-pion lifetime, microseconds."""
TAU_MUON = 2.1969811
"""Muon lifetime, microseconds."""
