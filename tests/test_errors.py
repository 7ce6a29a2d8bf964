"""Errors say what was given and what would do."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cevjax.errors import (
    CevjaxError,
    InvalidValueError,
    ParameterClashError,
    ReleaseFileError,
    UnknownNameError,
    check_name,
)
from cevjax.interactions import interaction
from cevjax.registry import dataset_loader, dataset_names, interaction_class, interaction_names

FORM_FACTORS = ("helm", "klein-nystrand", "fermi")


def test_nearest_name_is_offered():
    error = UnknownNameError("form factor", "klein-nistrand", FORM_FACTORS)
    assert str(error) == (
        "Unknown form factor 'klein-nistrand'. Did you mean 'klein-nystrand'? Valid names: fermi, helm, klein-nystrand."
    )


def test_no_name_is_offered_when_none_is_near():
    message = str(UnknownNameError("form factor", "xyz", FORM_FACTORS))
    assert "Did you mean" not in message
    assert "fermi, helm, klein-nystrand" in message
    assert "(none)" in str(UnknownNameError("form factor", "helm", ()))


@given(st.sampled_from(FORM_FACTORS), st.data())
@settings(max_examples=50, deadline=None)
def test_one_wrong_letter_is_corrected(name, data):
    position = data.draw(st.integers(0, len(name) - 1))
    with pytest.raises(UnknownNameError, match=f"Did you mean '{name}'"):
        check_name("form factor", name[:position] + "#" + name[position + 1 :], FORM_FACTORS)


def test_valid_names_pass():
    assert [check_name("form factor", name, iter(FORM_FACTORS)) for name in FORM_FACTORS] == list(FORM_FACTORS)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (UnknownNameError, KeyError),
        (InvalidValueError, ValueError),
        (ParameterClashError, ValueError),
        (ReleaseFileError, ValueError),
    ],
)
def test_errors_can_be_caught_as_one_or_as_builtins(error, builtin):
    assert issubclass(error, CevjaxError)
    assert issubclass(error, builtin)


def test_errors_survive_the_way_back_from_a_worker_process():
    error = UnknownNameError("form factor", "helms", FORM_FACTORS)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_registry_offers_the_nearest_plug_in():
    assert {"standard-model", "nsi"} <= set(interaction_names())
    assert "coherent-csi-2021" in dataset_names()
    with pytest.raises(UnknownNameError, match="Did you mean 'standard-model'"):
        interaction_class("standardmodel")
    with pytest.raises(UnknownNameError, match="Did you mean 'coherent-csi-2021'"):
        dataset_loader("coherent_csi_2021")
    assert interaction("standard-model", couplings="tree").couplings == "tree"
    with pytest.raises(UnknownNameError, match="Did you mean 'tree'"):
        interaction("standard-model", couplings="trees")
