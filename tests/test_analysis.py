"""From the words of a command line to a likelihood."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cevjax
from cevjax.analysis import build_interaction, build_likelihood, parse_assignments, parse_plugin
from cevjax.errors import InvalidValueError, UnknownNameError

NAME, CHEAP = "coherent-csi-2021", "2303.09360"
words = st.text("abcdefgh_0123456789./-", min_size=1, max_size=8)
keys = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "name", "choices"),
    [
        (NAME, NAME, {}),
        (f"{NAME}:", NAME, {}),
        (f"{NAME}:statistic=default", NAME, {"statistic": "default"}),
        ("x:quenching=ybe,flux=hmve", "x", {"quenching": "ybe", "flux": "hmve"}),
        ("x:form-factor=klein-nystrand", "x", {"form_factor": "klein-nystrand"}),
        ("x: a = b , c=d,", "x", {"a": "b", "c": "d"}),
        ("x:release=/data/a=b:c", "x", {"release": "/data/a=b:c"}),
    ],
)
def test_data_sets_and_choices(text, name, choices):
    assert parse_plugin(text) == (name, choices)


@given(words, st.dictionaries(keys, words, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_choices_are_read_back(name, choices):
    text = name + ":" + ",".join(f"{key}={value}" for key, value in choices.items())
    assert parse_plugin(text) == (name, choices)


@pytest.mark.parametrize("rest", ["a", "a=", "=b", "=", "a=b,c", "a=b,=c", "a=b,c="])
def test_malformed_choices(rest):
    with pytest.raises(InvalidValueError, match="key=value") as caught:
        parse_plugin(f"csi:{rest}")
    assert "'csi'" in str(caught.value) and repr(rest) in str(caught.value)


@pytest.mark.parametrize("rest", ["a=b,a=c", "form-factor=helm,form_factor=fermi"])
def test_a_choice_is_made_once(rest):
    with pytest.raises(InvalidValueError):
        parse_plugin(f"csi:{rest}")


@pytest.mark.parametrize(
    ("items", "values"),
    [
        ([], {}),
        (["a=1"], {"a": 1.0}),
        (["a=1e-11", "b=-2", " c = +3. "], {"a": 1e-11, "b": -2.0, "c": 3.0}),
        (["a=1", "a=1.0"], {"a": 1.0}),
        (["a=inf"], {"a": np.inf}),  # for the bounds of the parameter to refuse
    ],
)
def test_assignments(items, values):
    assert parse_assignments(items, "--set") == values


@given(st.dictionaries(keys, st.floats(allow_nan=False)))
@settings(max_examples=100, deadline=None)
def test_any_assignments_are_read_back_exactly(values):
    assert parse_assignments([f"{name}={value!r}" for name, value in values.items()], "--set") == values


@pytest.mark.parametrize("item", ["a", "a=", "=1", "a=b", "a==1", "a=1=2", "a=1,b=2", "a=1_", ""])
def test_malformed_assignments(item):
    with pytest.raises(InvalidValueError, match="NAME=VALUE") as caught:
        parse_assignments(["b=2", item], "--asimov")
    assert "`--asimov`" in str(caught.value) and repr(item) in str(caught.value)


def test_a_parameter_is_given_once():
    with pytest.raises(InvalidValueError, match="`a` came twice"):
        parse_assignments(["a=1", "b=1", "a=2"], "--set")


def test_not_a_number_is_not_taken_for_a_repetition():
    """It is refused, here or with the bounds of the parameter, but for what it is."""
    try:
        assert np.isnan(parse_assignments(["a=nan"], "--set")["a"])
    except InvalidValueError as error:
        assert "twice" not in str(error)


def test_interactions_are_added_once():
    assert build_interaction().name == "standard-model"
    assert build_interaction(["nsi", "standard-model", "nsi"]).name == "standard-model + nsi"
    with pytest.raises(UnknownNameError, match="Did you mean 'nsi'"):
        build_interaction(["nis"])
    with pytest.raises(UnknownNameError, match="Did you mean 'tree'"):
        build_interaction(couplings="trees")


def choices_of(text, model=None):
    """The added interaction that the words describe."""
    return build_interaction([text], model=model).terms[1]


def test_choices_of_an_interaction():
    assert choices_of("leptoquark:model=S3").model == "S3"
    assert choices_of("light-vector:model=lmu-ltau,loop-sign=-1").loop_sign == -1
    assert choices_of("nsi:complex_entries=TRUE").complex_entries is True
    assert choices_of("light-scalar:nucleon-charges=1711.09773").nucleon_charges.scalar_p == 15.1
    # names that look like numbers stay names
    assert build_interaction(["standard-model:couplings=2023"]).couplings == "2023"
    assert build_interaction(["standard-model:couplings=2023,exact_kinematics=true"], "tree").couplings == "tree"


def test_the_model_goes_to_the_interaction_that_has_one():
    assert choices_of("light-vector", "b-l").model == "b-l"
    assert choices_of("leptoquark:model=R2", "S1").model == "R2"
    assert build_interaction(["nsi", "leptoquark"], model="S3").terms[2].model == "S3"
    for names in ([], ["nsi"], ["leptoquark", "light-vector"]):
        with pytest.raises(InvalidValueError, match="`--model`"):
            build_interaction(names, model="b-l")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("light-vector:model=B-L", "Did you mean 'b-l'"),
        ("leptoquark:mdel=S1", "Did you mean 'model'"),
        ("light-vector:loop_sign=plus", "whole number"),
        ("light-vector:loop_sign=2", "1 or -1"),
        ("nsi:complex_entries=1", "true or false"),
        ("nsi:complex_entries", "key=value"),
        ("charge-radius:couplings=2022", "Did you mean '2023'"),
        ("generalized:nucleon_charges=2211.1190", "Did you mean '2211.11905'"),
        ("transition-magnetic-moment:basis=masses", "Did you mean 'mass'"),
    ],
)
def test_unusable_choices_of_an_interaction(text, said):
    with pytest.raises((InvalidValueError, UnknownNameError), match=re.escape(said)):
        build_interaction([text])


def test_an_interaction_with_two_sets_of_choices():
    with pytest.raises(InvalidValueError, match="once"):
        build_interaction(["leptoquark:model=S1", "leptoquark:model=S3"])


@pytest.mark.parametrize(("es", "components"), [(None, 4), (True, 5), (False, 4)])
def test_electrons_as_signal(es, components):
    like = build_likelihood([NAME], statistic=CHEAP, es=es)
    assert len(like.measurements[0].components) == components
    assert len(build_likelihood([f"{NAME}:es=true"], statistic=CHEAP, es=es).measurements[0].components) == 5


def test_likelihood_of_a_name():
    like = build_likelihood([NAME])
    assert [(m.name, m.statistic) for m in like.measurements] == [(NAME, "default")]
    assert like.interaction.name == "standard-model"
    reference = cevjax.Likelihood([cevjax.load(NAME)], cevjax.StandardModel())
    assert like.parameters == reference.parameters
    assert float(like.nll(like.nominal())) == pytest.approx(float(reference.nll(reference.nominal())), rel=1e-12)


def signal(like):
    return np.asarray(like.expected(like.nominal())[NAME]["cevns"])


def test_likelihood_of_options():
    like = build_likelihood([NAME], ["nsi"], CHEAP, "tree", "fermi")
    measurement = cevjax.load(NAME, statistic=CHEAP, form_factor="fermi")
    reference = cevjax.Likelihood([measurement], cevjax.StandardModel("tree") + cevjax.NSI())
    assert like.parameters == reference.parameters and like.measurements[0].statistic == CHEAP
    np.testing.assert_allclose(signal(like), signal(reference), rtol=1e-12)


def test_couplings_are_those_of_the_statistic_unless_chosen():
    tree = signal(build_likelihood([NAME], statistic="2211.11905", couplings="tree"))
    np.testing.assert_allclose(signal(build_likelihood([NAME], statistic="2211.11905")), tree, rtol=1e-12)
    other = signal(build_likelihood([NAME], statistic="2211.11905", couplings="2023"))
    assert abs(other.sum() / tree.sum() - 1) > 1e-3


def test_a_data_set_chooses_for_itself():
    like = build_likelihood([f"{NAME}:statistic={CHEAP},form_factor=fermi"], (), "2211.11905", None, "helm")
    assert like.measurements[0].statistic == CHEAP
    np.testing.assert_allclose(signal(like), signal(build_likelihood([NAME], (), CHEAP, None, "fermi")), rtol=1e-12)


@pytest.mark.parametrize("point", [{}, {"sin2_theta_w": 0.3}, {"sin2_theta_w": 0.2, "csi2021_ssb": 1.0}])
def test_asimov_data_are_the_expectation(point):
    like = build_likelihood([NAME], statistic=CHEAP, asimov=point)
    at = like.nominal(**point)
    total = sum(np.asarray(counts) for counts in like.expected(at)[NAME].values())
    np.testing.assert_allclose(like.measurements[0].observed, total, rtol=1e-12)
    assert float(like.nll(at)) == pytest.approx(at["csi2021_ssb"] ** 2 / 2, abs=1e-9)


def test_no_asimov_means_the_data():
    assert float(build_likelihood([NAME], asimov=None).measurements[0].observed.sum()) == 1578


@pytest.mark.parametrize("names", [(NAME, NAME), (NAME, f"{NAME}:form_factor=fermi")])
def test_a_data_set_comes_once(names):
    with pytest.raises(InvalidValueError, match="once"):
        build_likelihood(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": ["coherent-csi-2020"]}, "Did you mean 'coherent-csi-2021'"),
        ({"datasets": [f"{NAME}:statistics=default"]}, "Did you mean 'statistic'"),
        ({"statistic": "2303.0936"}, "Did you mean '2303.09360'"),
        ({"form_factor": "helms"}, "Did you mean 'helm'"),
        ({"couplings": "trees"}, "Did you mean 'tree'"),
        ({"interactions": ["nis"]}, "Did you mean 'nsi'"),
        ({"asimov": {"sin2_theta": 0.2}}, "Did you mean 'sin2_theta_w'"),
    ],
)
def test_unknown_names(options, message):
    with pytest.raises(UnknownNameError, match=message):
        build_likelihood(**{"datasets": [NAME], **options})


def test_asimov_is_within_bounds():
    with pytest.raises(InvalidValueError, match="`sin2_theta_w` must be between 0 and 1"):
        build_likelihood([NAME], asimov={"sin2_theta_w": 1.5})
    with pytest.raises(InvalidValueError, match="finite"):
        build_likelihood([NAME], asimov={"sin2_theta_w": float("nan")})


def test_no_data_set():
    with pytest.raises(InvalidValueError, match="measurement"):
        build_likelihood([])
