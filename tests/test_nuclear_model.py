"""Nuclei bound to radii and form factors, and the parameters that change them."""

import jax
import jax.numpy as jnp
import pytest

from cevjax.form_factors import form_factor
from cevjax.nuclear_model import BoundNucleus, NuclearModel
from cevjax.nuclei import nucleus, target


def test_bound_nucleus_counts_nucleons():
    nuclide = nucleus("I127")
    bound = BoundNucleus(nuclide, form_factor("helm"), jnp.asarray(4.767), jnp.asarray(5.03))
    assert (bound.Z, bound.N, bound.mass) == (53, 74, nuclide.mass)
    assert float(bound.protons(0.0)) == 53
    assert float(bound.neutrons(0.0)) == 74
    # F = 1 - q^2 R^2/6: the ratio of the slopes is that of the squared radii
    p, n = 1 - float(bound.protons(2.0)) / 53, 1 - float(bound.neutrons(2.0)) / 74
    assert n / p == pytest.approx((5.03 / 4.767) ** 2, rel=1e-4)


def model(name="CsI", **choices):
    return NuclearModel(target(name), form_factor(choices.pop("form_factor", "helm")), **choices)


def test_parameters_of_a_compound():
    cs, iodine, both = model().parameters
    assert [cs.name, iodine.name, both.name] == ["R_n_Cs133", "R_n_I127", "R_n_CsI"]
    assert [cs.nominal, iodine.nominal, both.nominal] == pytest.approx([5.09, 5.03, 5.06])
    assert both.members == ("R_n_Cs133", "R_n_I127")
    assert [p.name for p in model("Ar40").parameters] == ["R_n_Ar40"]
    assert len(model("Ge").parameters) == 6


def test_common_radius_replaces_those_of_the_nuclides():
    separate = {"R_n_Cs133": 5.1, "R_n_I127": 4.9}
    assert [float(b.R_n) for b in model().bind(separate)] == [5.1, 4.9]
    assert [float(b.R_n) for b in model().bind({**separate, "R_n_CsI": 5.5})] == [5.5, 5.5]
    assert [float(b.R_p) for b in model().bind(separate)] == [nucleus("Cs133").R_p, nucleus("I127").R_p]


@pytest.mark.parametrize("of_protons", [False, True])
def test_size_nuisance(of_protons):
    varied = model(size_nuisance="size", size_sigma=0.05, size_of_protons=of_protons)
    (cs, _) = varied.bind({"R_n_Cs133": 5.0, "R_n_I127": 5.0, "size": 2.0})
    assert float(cs.R_n) == pytest.approx(5.5, rel=1e-14)
    assert float(cs.R_p) == pytest.approx(nucleus("Cs133").R_p * (1.1 if of_protons else 1.0), rel=1e-14)
    assert all(p.supersedes == ("size",) for p in varied.parameters)


def test_size_nuisance_scales_the_box_of_klein_nystrand():
    varied = model("Ar40", form_factor="klein-nystrand", size_nuisance="size", size_sigma=0.05)
    nominal = varied.parameters[0].nominal
    (argon,) = varied.bind({"R_n_Ar40": nominal, "size": 1.0})
    # rms^2 = 3/5 box^2 + 6 a^2 with box = 1.23 A^(1/3) and a = 0.7 fm; nominal values are rounded to 1e-6
    box = 1.23 * 40 ** (1 / 3)
    assert float(argon.R_n) == pytest.approx((0.6 * (1.05 * box) ** 2 + 6 * 0.49) ** 0.5, abs=2e-6)


def test_derivative_in_the_radius_through_binding():
    def protons_and_neutrons(params):
        (argon,) = model("Ar40", size_nuisance="size", size_sigma=0.05).bind(params)
        return argon.protons(60.0) + argon.neutrons(60.0)

    point = {"R_n_Ar40": 3.6, "size": 0.3}
    gradient = jax.jit(jax.grad(protons_and_neutrons))(point)
    function = jax.jit(protons_and_neutrons)
    for name, h in (("R_n_Ar40", 1e-4), ("size", 1e-3)):
        up, down = ({**point, name: point[name] + s * h} for s in (1, -1))
        assert float(gradient[name]) == pytest.approx(float(function(up) - function(down)) / (2 * h), rel=1e-6)
