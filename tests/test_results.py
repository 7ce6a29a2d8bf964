"""Results as plain data, and files that appear complete or not at all."""

import contextlib
import dataclasses
import json
import os
import stat

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import cevjax
from cevjax.errors import InvalidValueError
from cevjax.results import FitResult, save_json, to_json, write_atomically

NAME = "coherent-csi-2021"


def hypothetical(like, free=(), names=None, chi2_min=90.0):
    """A result that no fit was needed for."""
    names = (*free, *like.nuisances) if names is None else names
    return FitResult(
        likelihood=like,
        free=tuple(free),
        names=tuple(names),
        values=like.nominal(),
        errors=dict.fromkeys(names, 1.0),
        covariance=np.eye(len(names)),
        chi2_min=chi2_min,
        converged=True,
        message="converged",
        seconds=0.5,
    )


@pytest.fixture(scope="module")
def result(csi_likelihood):
    return cevjax.fit(csi_likelihood("2211.11905"), free=("sin2_theta_w",))


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_written(tmp_path):
    path = write_atomically(tmp_path / "a.txt", lambda temporary: temporary.write_text("new"))
    assert path == tmp_path / "a.txt" and path.read_text() == "new"
    write_atomically(str(path), lambda temporary: temporary.write_text("newer"))
    assert path.read_text() == "newer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_relative_path_is_that_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("a.txt", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "a.txt").read_text() == "new"


def test_the_writer_sees_a_file_of_the_same_ending_in_the_same_folder(tmp_path):
    seen = []

    def write(temporary):
        seen.append(temporary)
        assert not (tmp_path / "fit.png").exists()  # nothing is there before it is complete
        temporary.write_bytes(b"figure")

    write_atomically(tmp_path / "fit.png", write)
    assert seen[0].suffix == ".png" and seen[0].parent == tmp_path and seen[0].name != "fit.png"


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("no"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failing_writer_leaves_no_new_file(tmp_path):
    def write(temporary):
        temporary.unlink()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_atomically(tmp_path / "a.txt", write)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_a_normal_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "normal").touch()
        write_atomically(tmp_path / "atomic", lambda temporary: temporary.write_text("x"))
        assert os.umask(mask) == mask  # asking for the mask does not change it
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("normal", "atomic")]
    assert modes[0] == modes[1] == 0o666 & ~mask


def test_unusable_paths_are_refused_before_writing(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing" / "a.txt", tmp_path / "file" / "a.txt", tmp_path):
        with pytest.raises(InvalidValueError, match="folder") as caught:
            write_atomically(path, lambda temporary: pytest.fail("was called"))
        assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_not_a_plain_file_is_not_replaced(tmp_path):
    """/dev/stdout and /dev/null must survive, even for root."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that writing into it does not wait
    try:
        with contextlib.suppress(InvalidValueError):
            write_atomically(path, lambda temporary: temporary.write_text("x"))
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_json_is_saved(tmp_path):
    save_json(tmp_path / "a.json", {"x": np.arange(3)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [0, 1, 2]}
    with pytest.raises(TypeError):
        save_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [0, 1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


# -------------------------------------------------------------------------------------------------------------- JSON


def parse(text):
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_numbers_that_are_not_finite_are_null():
    data = {"a": np.nan, "b": [np.inf, -np.inf, 1.5], "c": {"d": np.float32("nan")}, "e": np.array([[1.0, np.nan]])}
    assert parse(to_json(data)) == {"a": None, "b": [None, None, 1.5], "c": {"d": None}, "e": [[1.0, None]]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array(2.5), 2.5),
        (np.array([1, 2], np.int32), [1, 2]),
        (np.array([True, False]), [True, False]),
        (np.zeros((0, 2)), []),
        ((1, (2.0, "x")), [1, [2.0, "x"]]),
        (None, None),
        (True, True),
    ],
)
def test_numpy_types_become_plain_ones(value, expected):
    found = parse(to_json({"x": value}))["x"]
    assert found == expected and type(found) is type(expected)


def test_numbers_keep_all_digits():
    assert parse(to_json({"x": [0.1 + 0.2, 1e-300, np.pi * 1e-44]}))["x"] == [0.1 + 0.2, 1e-300, np.pi * 1e-44]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain))
@settings(max_examples=100, deadline=None)
def test_plain_data_survive(data):
    text = to_json(data)
    assert parse(text) == data
    assert text.endswith("}\n")


# --------------------------------------------------------------------------------------------------------------- fits


def test_fit_has_the_fields_of_the_contract(result):
    data = result.to_dict()
    expected = {"cevjax", "command", "datasets", "interaction", "statistic", "chi2_min", "n_bins", "ndof", "p_value"}
    expected |= {"converged", "parameters", "nuisances", "expected", "observed", "seconds"}
    assert expected <= set(data)
    assert set(data["parameters"]["sin2_theta_w"]) == {"value", "error", "unit"}
    assert all({"value", "error", "pull"} <= set(entry) for entry in data["nuisances"].values())
    assert set(data["expected"][NAME]) == {"cevns", "brn", "nin", "ssb"}
    assert parse(to_json(data))["chi2_min"] == result.chi2_min


def test_fit_reports_what_it_found(result, csi_likelihood):
    data = result.to_dict()
    assert (data["command"], data["datasets"], data["statistic"]) == ("fit", [NAME], "2211.11905")
    assert (data["interaction"], data["n_bins"]) == ("standard-model", 99)
    assert data["converged"] is True and data["chi2_min"] == result.chi2_min
    for section, names in (("parameters", result.free), ("nuisances", result.nuisances)):
        assert set(data[section]) == set(names)
        for name in names:
            assert data[section][name]["value"] == result.values[name]
            assert data[section][name]["error"] == result.errors[name]
    assert set(data["parameters"]) | set(data["nuisances"]) | set(data["fixed"]) == set(result.values)
    like = csi_likelihood("2211.11905")
    for name, counts in like.expected(result.values)[NAME].items():
        assert data["expected"][NAME][name] == pytest.approx(float(counts.sum()), rel=1e-12)
    assert data["observed"] == {NAME: 1578.0}


def test_pull_is_the_distance_from_the_auxiliary_measurement(csi_likelihood):
    like = csi_likelihood()
    result = dataclasses.replace(hypothetical(like), values=like.nominal(sns_flux=1.5, csi2021_timing=-0.5))
    nuisances = result.to_dict()["nuisances"]
    assert nuisances["sns_flux"]["pull"] == 1.5 and nuisances["csi2021_timing"]["pull"] == -0.5
    assert nuisances["csi2021_brn"]["pull"] == 0


def test_a_nuisance_without_measurement_has_no_pull(csi_likelihood):
    nuisances = hypothetical(csi_likelihood("2211.11905-shape")).to_dict()["nuisances"]
    assert nuisances["csi2021_timing"]["pull"] is None and nuisances["csi2021_efficiency"]["pull"] is None
    assert nuisances["csi2021_radius"]["pull"] == 0


@pytest.mark.parametrize(
    ("statistic", "free", "constrained", "unconstrained"),
    [
        ("default", (), 9, 0),
        ("default", ("sin2_theta_w",), 9, 1),
        ("default", ("sin2_theta_w", "R_n_Cs133"), 9, 2),
        ("2211.11905", (), 5, 0),
        ("2211.11905-shape", (), 5, 2),
        ("2211.11905-shape", ("sin2_theta_w",), 5, 3),
        ("2303.09360", (), 4, 0),
    ],
)
def test_degrees_of_freedom(csi_likelihood, statistic, free, constrained, unconstrained):
    """Bins and auxiliary measurements less parameters: a constrained nuisance costs nothing."""
    result = hypothetical(csi_likelihood(statistic), free)
    assert len(result.names) == constrained + unconstrained
    assert result.ndof == 99 - unconstrained


def test_a_nuisance_that_is_not_fitted_does_not_count(csi_likelihood):
    like = csi_likelihood()
    names = tuple(name for name in like.nuisances if name != "csi2021_brn")
    assert hypothetical(like, names=names).ndof == 99


@pytest.mark.parametrize("free", [(), ("sin2_theta_w",)])
@pytest.mark.parametrize("chi2_min", [0.0, 1e-9, 5.0, 18.0, 40.0, 400.0])
def test_p_value_of_gaussian_data_is_that_of_the_chi2_distribution(free, chi2_min):
    like = cevjax.Likelihood([cevjax.load("conus-plus-2025")], cevjax.StandardModel())
    result = hypothetical(like, free, chi2_min=chi2_min)
    assert result.p_value == pytest.approx(stats.chi2.sf(chi2_min, 19 - len(free)), rel=1e-10, abs=1e-300)


def test_p_value_of_sparse_counts_is_that_of_toys(csi_likelihood):
    """Without fitted parameters: the expectation of the 99 bins fluctuates; a quarter of them hold less than five."""
    like = csi_likelihood()
    result = hypothetical(like, names=())
    mu = np.sum(list(like.expected(result.values)["coherent-csi-2021"].values()), axis=0)
    assert np.mean(mu < 5) > 0.25
    n = np.random.default_rng(4).poisson(mu, (20_000, *mu.shape))
    chi2 = 2 * np.sum(mu - n + special.xlogy(n, n / mu), axis=(1, 2))
    for quantile in (0.5, 0.9, 0.99):
        at = float(np.quantile(chi2, quantile))
        found = dataclasses.replace(result, chi2_min=at).p_value
        assert found == pytest.approx(1 - quantile, abs=0.02)
        naive = stats.chi2.sf(at, 99)
        assert abs(found - (1 - quantile)) < abs(naive - (1 - quantile))


def test_p_value_survives_rounding(csi_likelihood):
    """At the truth of Asimov data chi2 is zero up to rounding, which has two signs."""
    assert hypothetical(csi_likelihood(), chi2_min=-1e-13).p_value == pytest.approx(1)


def test_a_missing_error_is_null(csi_likelihood):
    result = hypothetical(csi_likelihood())
    result = dataclasses.replace(result, errors={**result.errors, "csi2021_brn": None})
    assert parse(to_json(result.to_dict()))["nuisances"]["csi2021_brn"]["error"] is None


def test_expected_counts_are_numpy(result):
    for counts in result.expected()[NAME].values():
        assert type(counts) is np.ndarray and counts.shape == (9, 11)


def test_several_statistics_are_told_apart(csi_likelihood):
    measurements = [csi_likelihood("2211.11905").measurements[0], cevjax.load(NAME, statistic="2211.11905")]
    other = dataclasses.replace(measurements[1], name="other", statistic="mine", observed=jnp.ones((9, 11)))
    like = cevjax.Likelihood([measurements[0], other], cevjax.StandardModel())
    data = hypothetical(like).to_dict()
    assert data["statistic"] == {NAME: "2211.11905", "other": "mine"}
    assert data["datasets"] == [NAME, "other"] and data["n_bins"] == 198
    assert data["observed"] == {NAME: 1578.0, "other": 99.0}


def test_interval_has_the_fields_of_the_contract(csi_likelihood):
    data = cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=0.5).to_dict()
    assert {"cevjax", "command", "datasets", "poi", "cl", "best_fit", "chi2_min", "intervals"} <= set(data)
    assert (data["command"], data["poi"], data["cl"]) == ("interval", "sin2_theta_w", 0.5)
    assert parse(to_json(data))["intervals"] == data["intervals"]
