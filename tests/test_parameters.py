"""Parameters: checks of values, search ranges and merging of owners."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cevjax.errors import InvalidValueError, ParameterClashError, UnknownNameError
from cevjax.parameters import Gaussian, Parameter, check_values, merge, pull

RADIUS = Parameter("R_n", 5.0, "fm", bounds=(2.0, 12.0), scale=0.3, window=(2.5, 9.0))
finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize("value", [2.0, 12.0, 5, "5.5", True + 2])
def test_values_within_bounds_become_floats(value):
    checked = RADIUS.check(value)
    assert isinstance(checked, float)
    assert checked == float(value)


@pytest.mark.parametrize("value", [1.999999, 12.000001, -5.0, 1e300])
def test_values_out_of_bounds(value):
    with pytest.raises(InvalidValueError, match=r"`R_n` must be between 2 and 12 fm, but was"):
        RADIUS.check(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(value):
    with pytest.raises(InvalidValueError, match="`R_n` must be finite"):
        RADIUS.check(value)
    with pytest.raises(InvalidValueError, match="finite"):
        Parameter("unbounded").check(value)


@pytest.mark.parametrize("value", ["five", "", None, [1.0, 2.0], {}])
def test_values_that_are_not_numbers(value):
    with pytest.raises(InvalidValueError, match="`R_n` must be a number"):
        RADIUS.check(value)


def test_bounds_without_unit_read_well():
    with pytest.raises(InvalidValueError, match=r"between 0 and 1, but was 2\."):
        Parameter("x", bounds=(0.0, 1.0)).check(2)


@given(low=finite, width=st.floats(0, 1e6), value=finite)
@settings(max_examples=50, deadline=None)
def test_check_accepts_exactly_the_bounds(low, width, value):
    parameter = Parameter("x", bounds=(low, low + width))
    if low <= value <= low + width:
        assert parameter.check(value) == value
    else:
        with pytest.raises(InvalidValueError):
            parameter.check(value)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (RADIUS, (2.5, 9.0)),
        (Parameter("bounded", bounds=(0.0, 1.0)), (0.0, 1.0)),
        (Parameter("free", 1.0, scale=0.5), (-4.0, 6.0)),
        (Parameter("half", 0.0, bounds=(-4.0, math.inf), scale=2.0), (-4.0, 20.0)),
        (Parameter("window", bounds=(0.0, math.inf), window=(-1.0, 3.0)), (0.0, 3.0)),
        (Parameter("open window", 2.0, window=(0.0, math.inf)), (0.0, 12.0)),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_search_range(parameter, expected):
    assert parameter.search_range() == expected


@given(nominal=st.floats(-100, 100), scale=st.floats(1e-3, 10), side=st.sampled_from(["", "low", "high"]))
@settings(max_examples=50, deadline=None)
def test_search_range_is_finite_and_holds_the_nominal_value(nominal, scale, side):
    low = nominal - 1 if side == "low" else -math.inf
    high = nominal + 1 if side == "high" else math.inf
    a, b = Parameter("x", nominal, bounds=(low, high), scale=scale).search_range()
    assert -math.inf < a < nominal < b < math.inf
    assert low <= a and b <= high


def test_pull_is_constrained_to_unit_width():
    nuisance = pull("flux", "normalisation")
    assert nuisance.constraint == Gaussian(0.0, 1.0)
    assert nuisance.nuisance
    assert nuisance.nominal == 0
    assert not RADIUS.nuisance and RADIUS.constraint is None


def test_merge_keeps_order_and_names_owners():
    merged = merge([("first", [RADIUS, pull("a", "")]), ("second", [Parameter("b")])])
    assert list(merged) == ["R_n", "a", "b"]
    assert [p.owner for p in merged.values()] == ["first", "first", "second"]
    assert merged["R_n"] == RADIUS  # the owner does not take part in comparisons


def test_equal_definitions_are_shared():
    merged = merge([("csi", [pull("flux", "normalisation")]), ("lar", [pull("flux", "normalisation")])])
    assert list(merged) == ["flux"]
    assert merged["flux"].owner == "csi"


@pytest.mark.parametrize(
    ("field", "value"),
    [("nominal", 4.0), ("unit", "cm"), ("bounds", (0.0, 12.0)), ("constraint", Gaussian(5.0, 0.1)), ("nuisance", True)],
)
def test_clash_names_both_owners_and_the_difference(field, value):
    other = Parameter(**{**RADIUS.__dict__, field: value})
    with pytest.raises(ParameterClashError) as error:
        merge([("measurement A", [RADIUS]), ("measurement B", [Parameter("x")]), ("interaction C", [other])])
    message = str(error.value)
    for part in ("`R_n`", "measurement A", "interaction C", field, repr(value)):
        assert part in message
    assert "measurement B" not in message


def test_check_values():
    known = merge([("x", [RADIUS, Parameter("eps_uV_ee")])])
    assert check_values({"eps_uV_ee": 1, "R_n": 3.0}, known) == {"eps_uV_ee": 1.0, "R_n": 3.0}
    assert check_values({}, known) == {}
    with pytest.raises(UnknownNameError, match="Did you mean 'eps_uV_ee'"):
        check_values({"eps_u_ee": 0.1}, known)
    with pytest.raises(InvalidValueError, match="`R_n`"):
        check_values({"eps_uV_ee": 0.1, "R_n": 1.0}, known)


@given(exponent=st.floats(-12, 12), sign=st.sampled_from([-1, 1]), scale=st.sampled_from([1e-32, 1e-10, 1e-3]))
def test_coordinates_of_a_parameter_that_spans_decades(exponent, sign, scale):
    parameter = Parameter("g", scale=scale, decades=True, window=(-1e12 * scale, 1e12 * scale))
    value = sign * scale * 10**exponent
    u = float(parameter.encode(value))
    assert u == pytest.approx(math.asinh(sign * 10**exponent), rel=1e-12)
    assert float(parameter.decode(u)) == pytest.approx(value, rel=1e-10)
    # linear below the scale, logarithmic above
    if exponent < -3:
        assert u == pytest.approx(value / scale, rel=1e-6)
    if exponent > 3:
        assert u == pytest.approx(sign * math.log(2 * abs(value) / scale), rel=1e-6)


def test_coordinates_are_linear_otherwise_and_stay_within_bounds():
    assert float(RADIUS.encode(5.6)) == pytest.approx(2.0)
    assert float(RADIUS.decode(-1.0)) == pytest.approx(4.7)
    assert float(RADIUS.decode(1e9)) == 12.0
    positive = Parameter("m", 1.0, bounds=(0.0, math.inf), scale=0.1, decades=True, window=(0.1, 50.0))
    assert float(positive.decode(-3.0)) == 0.0
    assert math.isfinite(float(positive.decode(1e6)))
    np.testing.assert_array_equal(positive.encode([0.0, math.inf]), [0.0, math.inf])
