"""The command line: the JSON contract, agreement with the Python API, and what it says to unusable input."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import cevjax
from cevjax import registry
from cevjax.cli import app
from cevjax.form_factors import form_factor
from cevjax.inference import minimize
from cevjax.interactions.base import FLAVOURS
from cevjax.nuclear_model import NuclearModel
from cevjax.nuclei import target
from cevjax.rates import differential_cross_section

DATA = "coherent-csi-2021"
STATISTIC = "2303.09360"
CHEAP = (DATA, "--statistic", STATISTIC)
COMPONENTS = {"cevns", "brn", "nin", "ssb"}
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF", "svg": b"<?xml"}
DESCRIPTION = {"cevjax": str, "command": str, "datasets": list, "interaction": str, "statistic": str}
G_F, HBARC, M_ELECTRON = 1.1663788e-11, 197.3269804, 0.51099895


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (0, ""), (result.stderr, result.exception)
    return result


def parse(text):
    """JSON as the standard has it: no NaN and no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def output(*words):
    return parse(succeed(*words, "--json", "-").stdout)


def check_types(data, schema):
    """The keys of the contract with their types; more keys may come."""
    for key, kind in schema.items():
        assert key in data, key
        if kind is float:
            assert isinstance(data[key], (int, float)) and not isinstance(data[key], bool), (key, data[key])
        else:
            assert isinstance(data[key], kind), (key, data[key])


def without_time(data):
    return {key: value for key, value in data.items() if key != "seconds"}


def likelihood(interaction=None, **choices):
    measurement = cevjax.load(DATA, **{"statistic": STATISTIC, **choices})
    return cevjax.Likelihood([measurement], interaction or cevjax.StandardModel())


@pytest.fixture(scope="module")
def fitted():
    return output("fit", *CHEAP, "--free", "sin2_theta_w")


@pytest.fixture(scope="module")
def predicted():
    return output("predict", *CHEAP)


@pytest.fixture(scope="module")
def bounded():
    return output("interval", *CHEAP, "--poi", "sin2_theta_w", "--cl", 0.6827)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, so that relative paths and stray files are seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------------------------------------------- list


def test_list_has_every_topic():
    data = output("list")
    assert list(data) == ["datasets", "forecasts", "interactions", "parameters", "statistics"]
    assert [row["name"] for row in data["datasets"]] == list(registry.dataset_names())
    assert [row["name"] for row in data["interactions"]] == list(registry.interaction_names())
    csi = next(row for row in data["datasets"] if row["name"] == DATA)
    assert (csi["events"], csi["unit"]) == (1578, "events") and "2110.07730" in csi["citation"]
    assert {"dataset": DATA, "name": STATISTIC} in data["statistics"]
    assert {row["name"] for row in data["forecasts"]} == set(registry.forecast_names()) >= {"ess-csi", "coh-ar-750"}
    assert all(row["title"] for row in data["forecasts"])
    conus = next(row for row in data["datasets"] if row["name"] == "conus-plus-2025")
    assert "third party" in conus["remark"]


def test_listed_parameters_are_those_of_a_likelihood():
    rows = {row["name"]: row for row in output("list", "parameters")["parameters"]}
    like = cevjax.Likelihood([cevjax.load(DATA)], cevjax.StandardModel() + cevjax.NSI())
    assert set(like.parameters) <= set(rows)
    for name, parameter in like.parameters.items():
        assert (rows[name]["nominal"], rows[name]["unit"]) == (parameter.nominal, parameter.unit)
        assert bool(rows[name]["constraint"]) == (parameter.constraint is not None)


@pytest.mark.parametrize("topic", ["datasets", "forecasts", "interactions", "parameters", "statistics"])
def test_list_of_one_topic(topic):
    assert list(output("list", topic)) == [topic]


def test_list_says_what_an_interaction_adds():
    rows = {row["name"]: row for row in output("list", "interactions")["interactions"]}
    adds = {name: row["adds"] for name, row in rows.items()}
    assert adds["nsi"] == "coherent" and adds["sterile"] == "flux" and adds["tensor-nsi"] == "incoherent"
    assert adds["standard-model"] == adds["light-vector"] == "coherent, electrons"
    assert rows["light-scalar"]["parameters"] == "m_phi [MeV], g_phi [1]"
    assert rows["leptoquark"]["choices"] == "model" and "2307.13790" in rows["leptoquark"]["source"]
    assert all(row["source"] and row["description"] for row in rows.values())


def test_list_prints_every_name():
    text = succeed("list").stdout
    for name in (*registry.dataset_names(), *registry.interaction_names(), "sin2_theta_w", "eps_dV_ee", STATISTIC):
        assert name in text


# ---------------------------------------------------------------------------------------------------------------- xsec


def cross_section(name, energy, recoil_kev, flavour="e", model=None, values=(), shape="helm"):
    """dsigma/dT in cm^2/keV by the functions under the command."""
    model = model or cevjax.StandardModel()
    material = target(name)
    nuclear = NuclearModel(material, form_factor(shape))
    params = {p.name: p.nominal for p in (*model.parameters, *nuclear.parameters) if not p.members} | dict(values)
    total = sum(
        number * np.asarray(differential_cross_section(params, model, nucleus, energy, np.asarray(recoil_kev) * 1e-3))
        for nucleus, number in zip(nuclear.bind(params), material.numbers, strict=True)
    )
    return total[FLAVOURS.index(flavour)] * 1e-3


@pytest.mark.parametrize("flavour", ["e", "mu", "tau"])
@pytest.mark.parametrize("name", ["CsI", "Cs133", "Ar", "Ge"])
def test_xsec_is_the_sum_over_nuclei(name, flavour):
    data = output("xsec", name, "--energy-mev", 30, "--recoil-kev", "0.5:40:9", "--flavour", flavour)
    check_types(data, {"recoil_kev": list, "dsigma_dt_cm2_per_kev": list})
    assert data["recoil_kev"] == pytest.approx(np.linspace(0.5, 40, 9), rel=1e-14)
    expected = cross_section(name, 30, np.linspace(0.5, 40, 9), flavour)
    np.testing.assert_allclose(data["dsigma_dt_cm2_per_kev"], expected, rtol=1e-12)
    assert data["dsigma_dt_cm2_per_kev"][0] > 0


def test_xsec_of_a_point_nucleus_at_tree_level():
    words = ("--energy-mev", 20, "--recoil-kev", "0.1:5:4", "--couplings", "tree", "--form-factor", "point")
    data = output("xsec", "Ar40", *words, "--set", "sin2_theta_w=0.24")
    T, M = np.array(data["recoil_kev"]) * 1e-3, target("Ar40").nuclei[0].mass
    charge = 18 * (0.5 - 2 * 0.24) - 22 / 2
    expected = G_F**2 * M / np.pi * (1 - M * T / (2 * 20**2)) * charge**2 * (HBARC * 1e-13) ** 2 * 1e-3
    np.testing.assert_allclose(data["dsigma_dt_cm2_per_kev"], expected, rtol=1e-5)


def test_xsec_takes_the_options():
    words = ["--energy-mev", 25, "--recoil-kev", "1:9:3", "--form-factor", "fermi", "--couplings", "erler-su"]
    words += ["--interaction", "nsi", "--set", "eps_dV_ee=0.1", "--set", "eps_uV_etau=-0.2", "--set", "R_n_CsI=5.5"]
    model = cevjax.StandardModel("erler-su") + cevjax.NSI()
    values = {"eps_dV_ee": 0.1, "eps_uV_etau": -0.2, "R_n_CsI": 5.5}
    data = output("xsec", "CsI", *words)
    expected = cross_section("CsI", 25, [1, 5, 9], "e", model, values, "fermi")
    np.testing.assert_allclose(data["dsigma_dt_cm2_per_kev"], expected, rtol=1e-12)
    assert np.all(np.abs(expected / cross_section("CsI", 25, [1, 5, 9]) - 1) > 0.01)


@pytest.mark.parametrize("antineutrino", [False, True])
def test_xsec_on_electrons(antineutrino):
    """The literal formula times the electrons of CsI that are free at 1.5 and 5.5 keV."""
    words = ["--energy-mev", 0.5, "--recoil-kev", "1.5:5.5:2", "--flavour", "mu", "--electrons"]
    data = output("xsec", "CsI", *words, *(["--antineutrino"] if antineutrino else []))
    T, E, s2w = np.array([1.5e-3, 5.5e-3]), 0.5, 0.23857
    g_V, g_A = 2 * s2w - 0.5, 0.5 if antineutrino else -0.5
    bracket = (g_V + g_A) ** 2 + (g_V - g_A) ** 2 * (1 - T / E) ** 2 - (g_V**2 - g_A**2) * M_ELECTRON * T / E**2
    free = np.array([45 + 43, 51 + 51])
    expected = free * G_F**2 * M_ELECTRON / (2 * np.pi) * bracket * (HBARC * 1e-13) ** 2 * 1e-3
    np.testing.assert_allclose(data["dsigma_dt_cm2_per_kev"], expected, rtol=1e-6)
    assert data["electrons"] is True and data["antineutrino"] is antineutrino


def test_xsec_with_a_model():
    words = ("--energy-mev", 30, "--recoil-kev", "1:9:3", "--set", "g_zprime=3e-5", "--set", "m_zprime=10")
    data = output("xsec", "CsI", *words, "--interaction", "light-vector", "--model", "b-l")
    model, values = cevjax.StandardModel() + cevjax.LightVector("b-l"), {"g_zprime": 3e-5, "m_zprime": 10.0}
    expected = cross_section("CsI", 30, [1, 5, 9], "e", model, values)
    np.testing.assert_allclose(data["dsigma_dt_cm2_per_kev"], expected, rtol=1e-12)


def test_xsec_is_zero_beyond_the_end_point():
    mass = target("Ar40").nuclei[0].mass
    end = 1e3 * 2 * 30**2 / (mass + 2 * 30)
    data = output("xsec", "Ar40", "--energy-mev", 30, "--recoil-kev", f"{0.999 * end}:{2 * end}:5")
    assert data["dsigma_dt_cm2_per_kev"][0] > 0
    assert data["dsigma_dt_cm2_per_kev"][1:] == [0, 0, 0, 0]


def test_xsec_covers_all_recoils_by_default():
    data = output("xsec", "CsI", "--energy-mev", 30)
    mass = target("I127").nuclei[0].mass  # the lighter one recoils further
    assert data["recoil_kev"][-1] == pytest.approx(1e3 * 2 * 30**2 / (mass + 2 * 30))
    assert all(value > 0 for value in data["dsigma_dt_cm2_per_kev"][:-1])
    assert len(data["recoil_kev"]) == len(data["dsigma_dt_cm2_per_kev"])


def test_xsec_prints_a_table_with_units():
    text = succeed("xsec", "CsI", "--energy-mev", 30, "--recoil-kev", "2:2:1").stdout
    assert f"{cross_section('CsI', 30, [2.0])[0]:.6g}" in text
    assert "T [keV]" in text and "dsigma/dT [cm2/keV]" in text


# ------------------------------------------------------------------------------------------------------------- predict


def test_predict_json(predicted):
    check_types(predicted, {"cevjax": str, "command": str, "datasets": dict})
    assert predicted["command"] == "predict"
    entry = predicted["datasets"][DATA]
    assert set(entry) == {"axes", "observed", "components"}
    measurement = cevjax.load(DATA)
    assert list(entry["axes"]) == ["PE", "t_us"]
    assert entry["axes"] == {name: list(edges) for name, edges in measurement.axes}
    assert entry["observed"] == np.asarray(measurement.observed).tolist()
    assert set(entry["components"]) == COMPONENTS


def test_predict_agrees_with_python(predicted):
    like = likelihood()
    expected = like.expected(like.nominal())[DATA]
    for name, counts in predicted["datasets"][DATA]["components"].items():
        assert np.shape(counts) == (9, 11)
        np.testing.assert_allclose(counts, expected[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("words", "choices", "couplings", "values"),
    [
        (["--set", "sin2_theta_w=0.3", "--set", "csi2021_brn=1"], {}, None, {"sin2_theta_w": 0.3, "csi2021_brn": 1}),
        (["--set", "R_n_CsI=6"], {}, None, {"R_n_CsI": 6}),
        (["--couplings", "tree"], {}, "tree", {}),
        (["--form-factor", "fermi"], {"form_factor": "fermi"}, None, {}),
        (["--statistic", "2211.11905"], {"statistic": "2211.11905"}, None, {}),
    ],
)
def test_predict_takes_the_options(predicted, words, choices, couplings, values):
    signal = np.array(output("predict", *CHEAP, *words)["datasets"][DATA]["components"]["cevns"])
    like = likelihood(cevjax.StandardModel(couplings), **choices)
    np.testing.assert_allclose(signal, like.expected(like.nominal(**values))[DATA]["cevns"], rtol=1e-12)
    assert abs(signal.sum() / np.sum(predicted["datasets"][DATA]["components"]["cevns"]) - 1) > 1e-4


def test_choices_of_a_data_set_come_before_the_common_ones():
    data = output("predict", f"{DATA}:statistic={STATISTIC},form-factor=fermi", "--statistic", "2211.11905")
    assert data["statistic"] == STATISTIC
    like = likelihood(form_factor="fermi")
    signal = like.expected(like.nominal())[DATA]["cevns"]
    np.testing.assert_allclose(data["datasets"][DATA]["components"]["cevns"], signal, rtol=1e-12)


def test_electrons_count_as_signal_where_asked():
    words = ("predict", DATA, "--statistic", STATISTIC, "--interaction", "magnetic-moment", "--set", "mu_nu_mu=3e-9")
    parts = {flag: output(*words, flag)["datasets"][DATA]["components"] for flag in ("--es", "--no-es")}
    assert set(parts["--es"]) - set(parts["--no-es"]) == {"es"}
    np.testing.assert_allclose(parts["--es"]["cevns"], parts["--no-es"]["cevns"], rtol=1e-12)
    assert 5 < np.sum(parts["--es"]["es"]) < 20


def test_predict_with_an_interaction():
    data = output("predict", *CHEAP, "--interaction", "nsi", "--set", "eps_dV_ee=0.2")
    assert data["interaction"] == "standard-model + nsi"
    like = likelihood(cevjax.StandardModel() + cevjax.NSI())
    signal = like.expected(like.nominal(eps_dV_ee=0.2))[DATA]["cevns"]
    np.testing.assert_allclose(data["datasets"][DATA]["components"]["cevns"], signal, rtol=1e-12)


def test_naming_the_standard_model_or_an_interaction_twice_adds_nothing():
    words = ("--interaction", "standard-model", "--interaction", "nsi", "--interaction", "nsi")
    assert output("predict", *CHEAP, *words)["interaction"] == "standard-model + nsi"


def test_predict_asimov_is_its_own_data():
    point = ("--asimov", "sin2_theta_w=0.3", "--asimov", "csi2021_ssb=-1")
    data = output("predict", *CHEAP, *point, "--set", "sin2_theta_w=0.3", "--set", "csi2021_ssb=-1")
    entry = data["datasets"][DATA]
    np.testing.assert_allclose(np.sum(list(entry["components"].values()), axis=0), entry["observed"], rtol=1e-12)


def test_predict_prints_a_table(predicted):
    text = succeed("predict", *CHEAP).stdout
    sums = {name: np.sum(counts) for name, counts in predicted["datasets"][DATA]["components"].items()}
    for name, total in {**sums, "sum": sum(sums.values())}.items():
        assert any(line.split() == [name, f"{total:.1f}"] for line in text.splitlines())
    assert "1578" in text


# ----------------------------------------------------------------------------------------------------------------- fit


def test_fit_json(fitted):
    schema = {"chi2_min": float, "n_bins": int, "ndof": int, "p_value": float, "converged": bool, "seconds": float}
    schema |= {"parameters": dict, "nuisances": dict, "expected": dict, "observed": dict}
    check_types(fitted, DESCRIPTION | schema)
    assert fitted["cevjax"] == version("cevjax")
    assert (fitted["command"], fitted["datasets"], fitted["statistic"]) == ("fit", [DATA], STATISTIC)
    assert fitted["interaction"] == "standard-model"
    assert list(fitted["parameters"]) == ["sin2_theta_w"]
    check_types(fitted["parameters"]["sin2_theta_w"], {"value": float, "error": float, "unit": str})
    assert set(fitted["nuisances"]) == {"csi2021_signal", "csi2021_brn", "csi2021_nin", "csi2021_ssb"}
    for entry in fitted["nuisances"].values():
        check_types(entry, {"value": float, "error": float, "pull": float})
        assert entry["pull"] == pytest.approx(entry["value"])  # they are in units of their standard deviation
    assert set(fitted["expected"][DATA]) == COMPONENTS
    assert fitted["observed"] == {DATA: 1578}
    assert (fitted["n_bins"], fitted["ndof"], fitted["converged"]) == (99, 98, True)


def test_fit_agrees_with_python(fitted):
    result = cevjax.fit(likelihood(), free=("sin2_theta_w",))
    assert fitted["chi2_min"] == pytest.approx(result.chi2_min, abs=1e-8)
    assert fitted["p_value"] == pytest.approx(result.p_value, abs=1e-8)
    for name, entry in {**fitted["parameters"], **fitted["nuisances"]}.items():
        assert entry["value"] == pytest.approx(result.values[name], rel=1e-6)
        assert entry["error"] == pytest.approx(result.errors[name], rel=1e-6)
    for name, counts in result.expected()[DATA].items():
        assert fitted["expected"][DATA][name] == pytest.approx(counts.sum(), rel=1e-6)


def test_fit_writes_a_file_and_prints_a_table(folder, fitted):
    text = succeed("fit", *CHEAP, "--free", "sin2_theta_w", "--json", "fit.json").stdout
    assert without_time(parse((folder / "fit.json").read_text())) == without_time(fitted)
    assert [path.name for path in folder.iterdir()] == ["fit.json"]
    entry = fitted["parameters"]["sin2_theta_w"]
    assert f"sin2_theta_w  {entry['value']:.5g}  {entry['error']:.5g}" in text
    assert f"chi2_min {fitted['chi2_min']:.3f} for 98 degrees of freedom" in text
    assert "converged" in text and "{" not in text


def test_fit_sets_parameters():
    data = output("fit", *CHEAP, "--set", "sin2_theta_w=0.3", "--set", "csi2021_brn=1")
    result = cevjax.fit(likelihood(), values={"sin2_theta_w": 0.3, "csi2021_brn": 1.0})
    assert data["chi2_min"] == pytest.approx(result.chi2_min, abs=1e-8)
    assert data["parameters"] == {} and "csi2021_brn" not in data["nuisances"]


def test_asimov_fit_finds_the_truth():
    data = output("fit", *CHEAP, "--asimov", "sin2_theta_w=0.27", "--free", "sin2_theta_w")
    assert data["chi2_min"] == pytest.approx(0, abs=1e-7)
    assert data["p_value"] == pytest.approx(1)
    assert data["parameters"]["sin2_theta_w"]["value"] == pytest.approx(0.27, abs=1e-4)
    assert data["observed"][DATA] == pytest.approx(sum(data["expected"][DATA].values()), rel=1e-6)


def test_asimov_fit_away_from_the_truth():
    data = output("fit", *CHEAP, "--asimov", "sin2_theta_w=0.35")
    like = likelihood()
    expected = cevjax.fit(like.asimov(like.nominal(sin2_theta_w=0.35))).chi2_min
    assert data["chi2_min"] == pytest.approx(expected, abs=1e-8) and expected > 1


def test_fit_of_nsi_reports_both_minima():
    words = ("fit", *CHEAP, "--interaction", "nsi", "--free", "eps_dV_ee")
    data = output(*words)
    result = cevjax.fit(likelihood(cevjax.StandardModel() + cevjax.NSI()), free=("eps_dV_ee",))
    assert data["parameters"]["eps_dV_ee"]["value"] == pytest.approx(result.values["eps_dV_ee"], abs=1e-6)
    assert len(data["other_minima"]) == len(result.other_minima) == 1
    assert "Another minimum" in succeed(*words).stdout


def test_fit_takes_couplings_and_form_factor(fitted):
    data = output("fit", *CHEAP, "--couplings", "tree", "--form-factor", "klein-nystrand")
    result = cevjax.fit(likelihood(cevjax.StandardModel("tree"), form_factor="klein-nystrand"))
    assert data["chi2_min"] == pytest.approx(result.chi2_min, abs=1e-8)


def test_fit_says_what_it_left_out():
    data = output("fit", DATA, "--statistic", "2211.11905", "--free", "R_n_CsI")
    assert data["dropped"] == ["csi2021_radius"]
    assert data["parameters"]["R_n_CsI"]["unit"] == "fm"
    assert "csi2021_radius" in succeed("fit", DATA, "--statistic", "2211.11905", "--free", "R_n_CsI").stdout


def test_two_data_sets(folder, monkeypatch):
    def twin(statistic="default", form_factor=None):
        return dataclasses.replace(cevjax.load(DATA, statistic=statistic, form_factor=form_factor), name="twin")

    class Point:
        name = "twin"

        def load(self):
            return twin

    monkeypatch.setattr(registry, "_offered", lambda group: {"twin": Point()} if group == "cevjax.datasets" else {})
    words = (DATA, "twin", "--statistic", STATISTIC)
    data = output("fit", *words, "--plot", "both.png")
    one = output("fit", *CHEAP)
    assert data["datasets"] == [DATA, "twin"] and data["statistic"] == STATISTIC
    assert (data["n_bins"], data["ndof"]) == (198, 198)
    assert data["observed"] == {DATA: 1578, "twin": 1578}
    assert set(data["nuisances"]) == set(one["nuisances"])  # equal definitions are one parameter
    assert one["chi2_min"] < data["chi2_min"] < 2 * one["chi2_min"] + 10
    assert sorted(path.name for path in folder.iterdir()) == [f"both-{DATA}.png", "both-twin.png"]
    mixed = output("predict", f"{DATA}:statistic=2211.11905", "twin:statistic=2211.11905-shape")
    assert mixed["statistic"] == {DATA: "2211.11905", "twin": "2211.11905-shape"}
    clash = invoke("predict", f"{DATA}:statistic={STATISTIC}", "twin:statistic=2211.11905")
    assert (clash.exit_code, clash.stdout) == (2, "") and "couplings" in clash.stderr


# ------------------------------------------------------------------------------------------------------------ interval


def test_interval_json(bounded):
    schema = {"poi": str, "cl": float, "best_fit": float, "chi2_min": float, "intervals": list}
    check_types(bounded, DESCRIPTION | schema)
    assert (bounded["command"], bounded["poi"], bounded["cl"]) == ("interval", "sin2_theta_w", 0.6827)
    assert len(bounded["intervals"]) == 1
    low, high = bounded["intervals"][0]
    assert low < bounded["best_fit"] < high


def test_interval_agrees_with_python(bounded, fitted):
    result = cevjax.interval(likelihood(), "sin2_theta_w", cl=0.6827)
    assert bounded["intervals"][0] == pytest.approx(result.intervals[0], rel=1e-6)
    assert bounded["chi2_min"] == pytest.approx(fitted["chi2_min"], abs=1e-6)
    assert bounded["best_fit"] == pytest.approx(fitted["parameters"]["sin2_theta_w"]["value"], abs=1e-4)


def test_interval_is_of_90_percent_by_default(bounded):
    data = output("interval", *CHEAP, "--poi", "sin2_theta_w")
    assert data["cl"] == 0.9
    (wide,), (narrow,) = data["intervals"], bounded["intervals"]
    assert wide[0] < narrow[0] and narrow[1] < wide[1]


def test_interval_prints_a_table(folder, bounded):
    words = ("interval", *CHEAP, "--poi", "sin2_theta_w", "--cl", 0.6827)
    text = succeed(*words, "--json", "interval.json").stdout
    for end in bounded["intervals"][0]:
        assert f"{end:.5g}" in text
    assert without_time(parse((folder / "interval.json").read_text())) == without_time(bounded)


def test_interval_within_a_physical_limit(bounded):
    low = bounded["best_fit"] + 0.01
    data = output("interval", *CHEAP, "--poi", "sin2_theta_w", "--within", f"{low}:")
    ((start, end),) = data["intervals"]
    assert data["best_fit"] == pytest.approx(low) and start is None and low < end < 1
    words = ("interval", *CHEAP, "--poi", "sin2_theta_w", "--within")
    assert "`--within` must read LOW:HIGH" in invoke(*words, "0.2").stderr
    assert "'0.2:many'" in invoke(*words, "0.2:many").stderr
    assert invoke(*words, "0.4:0.2").exit_code == 2


def test_interval_has_two_pieces(folder):
    words = ("--interaction", "nsi", "--poi", "eps_dV_ee", "--asimov", "eps_dV_ee=0")
    data = output("interval", *CHEAP, *words, "--plot", "profile.png")
    assert len(data["intervals"]) == 2
    ends = [end for piece in data["intervals"] for end in piece]
    assert ends == sorted(ends)
    assert any(low < 0 < high for low, high in data["intervals"])
    assert data["chi2_min"] == pytest.approx(0, abs=1e-6)
    assert (folder / "profile.png").read_bytes().startswith(SIGNATURES["png"])


# --------------------------------------------------------------------------------------------------------------- plots


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_plots_are_written(folder, ending):
    for words in (("predict", *CHEAP), ("fit", *CHEAP), ("interval", *CHEAP, "--poi", "sin2_theta_w")):
        path = folder / f"{words[0]}.{ending}"
        parse(succeed(*words, "--plot", path, "--json", "-").stdout)  # the plot leaves standard output alone
        assert path.read_bytes().startswith(SIGNATURES[ending])
    assert len(list(folder.iterdir())) == 3


def test_a_plot_that_fails_leaves_the_old_file(folder, monkeypatch):
    def fail(figure, path, **options):
        with open(path, "wb") as file:
            file.write(b"half a figure")
        raise OSError("disk full")

    (folder / "fit.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    result = invoke("predict", *CHEAP, "--plot", "fit.png")
    assert result.exit_code == 1 and "disk full" in result.stderr
    assert (folder / "fit.png").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["fit.png"]


# ----------------------------------------------------------------------------------------------------- unusable input

COMMON = [
    (["coherent-csi-2020"], ["data set 'coherent-csi-2020'", "'coherent-csi-2021'?"]),
    (["coherent-csi-2021-x:statistic=default"], ["data set 'coherent-csi-2021-x'", "'coherent-csi-2021'?"]),
    ([""], ["data set ''"]),
    ([DATA, DATA], ["once", DATA]),
    ([DATA, f"{DATA}:form_factor=fermi"], ["once", DATA]),
    ([DATA, "--interaction", "nis"], ["interaction 'nis'", "'nsi'?"]),
    ([DATA, "--statistic", "2303.0936"], ["statistic '2303.0936'", "'2303.09360'?"]),
    ([DATA, "--couplings", "trees"], ["couplings 'trees'", "'tree'?"]),
    ([DATA, "--form-factor", "helms"], ["form factor 'helms'", "'helm'?"]),
    ([f"{DATA}:statistics=default"], ["choice", "'statistics'", "'statistic'?"]),
    ([f"{DATA}:statistic=2303.0936"], ["statistic '2303.0936'", "'2303.09360'?"]),
    ([f"{DATA}:form_factor=helms"], ["form factor 'helms'", "'helm'?"]),
    ([f"{DATA}:name=csi"], ["choice", "'name'"]),
    ([f"{DATA}:statistic"], ["key=value", "'statistic'"]),
    ([f"{DATA}:statistic="], ["key=value", "'statistic='"]),
    ([f"{DATA}:=default"], ["key=value", "'=default'"]),
    ([f"{DATA}:statistic=default,,form_factor"], ["key=value", "form_factor"]),
    ([f"{DATA}:pe_edges=0"], ["`pe_edges`", "`release`"]),
    ([f"{DATA}:release=nowhere"], ["`release`", "nowhere"]),
    ([*CHEAP, "--set", "sin2_theta=0.2"], ["parameter 'sin2_theta'", "'sin2_theta_w'?"]),
    ([*CHEAP, "--set", "eps_dV_ee=0.2"], ["parameter 'eps_dV_ee'"]),  # there is no such interaction
    ([*CHEAP, "--set", "self=1"], ["parameter 'self'"]),
    ([*CHEAP, "--set", "sin2_theta_w=2"], ["`sin2_theta_w`", "between 0 and 1", "was 2"]),
    ([*CHEAP, "--set", "R_n_CsI=1"], ["`R_n_CsI`", "between 2 and 12 fm", "was 1"]),
    ([*CHEAP, "--set", "sin2_theta_w=nan"], ["`sin2_theta_w`", "finite", "nan"]),
    ([*CHEAP, "--set", "sin2_theta_w=-inf"], ["`sin2_theta_w`", "finite", "inf"]),
    ([*CHEAP, "--set", "sin2_theta_w"], ["`--set`", "NAME=VALUE", "'sin2_theta_w'"]),
    ([*CHEAP, "--set", "sin2_theta_w="], ["`--set`", "NAME=VALUE", "'sin2_theta_w='"]),
    ([*CHEAP, "--set", "sin2_theta_w=a"], ["`--set`", "NAME=VALUE", "'sin2_theta_w=a'"]),
    ([*CHEAP, "--set", "sin2_theta_w=0.2=0.3"], ["`--set`", "NAME=VALUE", "'sin2_theta_w=0.2=0.3'"]),
    ([*CHEAP, "--set", "=0.2"], ["`--set`", "NAME=VALUE", "'=0.2'"]),
    ([*CHEAP, "--set", "sin2_theta_w=0.2", "--set", "sin2_theta_w=0.3"], ["`--set`", "`sin2_theta_w`", "twice"]),
    ([*CHEAP, "--asimov", "sin2_theta=0.2"], ["parameter 'sin2_theta'", "'sin2_theta_w'?"]),
    ([*CHEAP, "--asimov", "sin2_theta_w=2"], ["`sin2_theta_w`", "between 0 and 1"]),
    ([*CHEAP, "--asimov", "sin2_theta_w"], ["`--asimov`", "NAME=VALUE", "'sin2_theta_w'"]),
]
FIT = [
    (["fit", *CHEAP, "--free", "sin2_thetaw"], ["parameter 'sin2_thetaw'", "'sin2_theta_w'?"]),
    (["fit", *CHEAP, "--free", "sin2_theta_w", "--set", "sin2_theta_w=0.2"], ["`sin2_theta_w`", "free or set"]),
    (["fit", *CHEAP, "--free", "R_n_CsI", "--set", "R_n_Cs133=5"], ["`R_n_CsI`", "R_n_Cs133"]),
    (["fit", *CHEAP, "--free", "R_n_CsI", "--free", "R_n_I127"], ["`R_n_CsI`", "R_n_I127"]),
    (["interval", *CHEAP, "--poi", "sin2_thetaw"], ["parameter 'sin2_thetaw'", "'sin2_theta_w'?"]),
    (["interval", *CHEAP, "--poi", "sin2_theta_w", "--set", "sin2_theta_w=0.2"], ["`sin2_theta_w`", "free or set"]),
    (["interval", *CHEAP, "--poi", "sin2_theta_w", "--free", "eps_dV_ee"], ["parameter 'eps_dV_ee'"]),
    *(
        (["interval", *CHEAP, "--poi", "sin2_theta_w", "--cl", cl], ["cl", "between 0 and 1", cl])
        for cl in ("0", "1", "1.5", "-0.1", "90", "nan", "inf")
    ),
]
XSEC = [
    (["C3F9"], ["target 'C3F9'", "'C3F8'?"]),
    (["Cs134"], ["target 'Cs134'", "'Cs133'?"]),
    *((["CsI", "--energy-mev", energy], ["`--energy-mev`", energy]) for energy in ("0.0", "-30.0", "nan", "inf")),
    *(
        (["CsI", "--recoil-kev", recoil], ["`--recoil-kev`", "a:b:n", repr(recoil)])
        for recoil in ("1:14", "1:14:0", "1:14:-3", "1:14:2.5", "a:14:5", "0:14:5", "-1:1:3", "1:inf:4", "1:nan:4", "")
    ),
    (["CsI", "--interaction", "nis"], ["interaction 'nis'", "'nsi'?"]),
    (["CsI", "--couplings", "trees"], ["couplings 'trees'", "'tree'?"]),
    (["CsI", "--form-factor", "helms"], ["form factor 'helms'", "'helm'?"]),
    (["CsI", "--set", "sin2_theta=0.2"], ["parameter 'sin2_theta'", "'sin2_theta_w'?"]),
    (["CsI", "--set", "sin2_theta_w=2"], ["`sin2_theta_w`", "between 0 and 1"]),
    (["CsI", "--set", "sin2_theta_w=nan"], ["`sin2_theta_w`", "finite", "nan"]),
    (["CsI", "--set", "sin2_theta_w"], ["`--set`", "NAME=VALUE", "'sin2_theta_w'"]),
]


def names(cases):
    return [" ".join(map(str, words)).replace(" ".join(CHEAP), "").strip() or "empty" for words, _ in cases]


def assert_refused(result, words, folder, left=()):
    """Exit status 2 and one line on standard error that says ``words``; no file but those ``left`` from before."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for word in words:
        assert word in lines[0]
    assert result.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("words", "said"), COMMON, ids=names(COMMON))
def test_unusable_options_are_refused(folder, words, said):
    for command in (["predict"], ["fit"], ["interval", "--poi", "sin2_theta_w", "--plot", "out.png"]):
        if command[0] != "interval" or "sin2_theta_w" not in " ".join(words):
            assert_refused(invoke(*command, *words, "--json", "out.json"), said, folder)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("words", "said"), FIT, ids=names(FIT))
def test_unusable_fits_and_intervals_are_refused(folder, words, said):
    assert_refused(invoke(*words, "--json", "out.json", "--plot", "out.png"), said, folder)
    assert_refused(invoke(*words, "--json", "-"), said, folder)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("words", "said"), XSEC, ids=names(XSEC))
def test_unusable_cross_sections_are_refused(folder, words, said):
    energy = () if "--energy-mev" in words else ("--energy-mev", 30)
    assert_refused(invoke("xsec", *words, *energy, "--json", "out.json"), said, folder)


@pytest.mark.parametrize(
    ("option", "path", "said"),
    [
        ("--plot", "missing/out.png", ["missing", "folder"]),
        ("--json", "missing/out.json", ["missing", "folder"]),
        ("--plot", "out.xyz", ["out.xyz", "png", "pdf", "svg"]),
        ("--plot", "out", ["out", "png", "pdf", "svg"]),
        ("--plot", "file/out.png", ["file", "folder"]),
        ("--plot", "taken.png", ["taken.png", "folder"]),
        ("--json", "taken.png", ["taken.png", "folder"]),
        ("--json", "", ["--json"]),
    ],
)
@pytest.mark.parametrize("command", [["predict"], ["fit"], ["interval", "--poi", "sin2_theta_w"]])
def test_unusable_outputs_are_refused(folder, command, option, path, said):
    (folder / "taken.png").mkdir()
    (folder / "file").touch()
    other = ("--json", "out.json") if option == "--plot" else ("--plot", "out.png")
    assert_refused(invoke(*command, *CHEAP, option, path, *other), said, folder, left=["file", "taken.png"])


@pytest.mark.parametrize("words", [["list"], ["xsec", "CsI", "--energy-mev", 30]])
def test_unusable_json_paths_are_refused(folder, words):
    assert_refused(invoke(*words, "--json", "missing/out.json"), ["missing", "folder"], folder)
    assert_refused(invoke(*words, "--json", "."), ["folder"], folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", DATA, "--plto", "x.png"], "--plto"),
        (["fit"], "DATASET"),
        (["interval", DATA], "--poi"),
        (["interval", DATA, "--poi", "sin2_theta_w", "--cl", "high"], "--cl"),
        (["xsec", "CsI"], "--energy-mev"),
        (["xsec", "CsI", "--energy-mev", "fast"], "--energy-mev"),
        (["xsec", "CsI", "--energy-mev", 30, "--flavour", "x"], "--flavour"),
        (["list", "dataset"], "dataset"),
        (["fits", DATA], "fits"),
    ],
)
def test_wrong_words_are_refused(folder, words, said):
    result = invoke(*words)
    assert result.exit_code == 2 and result.stdout == ""
    assert said in result.stderr and result.stderr.count("Error") == 1
    assert not list(folder.iterdir())


# ---------------------------------------------------------------------------------------------------- jobs that fail


@pytest.fixture
def one_step(monkeypatch):
    """A minimiser that stops after one step."""
    monkeypatch.setattr(minimize, "MAX_STEPS", 1)
    monkeypatch.setattr(sys.modules["cevjax.inference.fit"], "MAX_STEPS", 0.1)  # and has ten times as many to go on


def test_a_fit_that_does_not_converge_says_so(one_step, folder):
    result = invoke("fit", *CHEAP, "--free", "sin2_theta_w", "--json", "-")
    assert result.exit_code == 1
    assert result.stderr.startswith("The fit did not converge") and len(result.stderr.splitlines()) == 1
    assert parse(result.stdout)["converged"] is False
    table = invoke("fit", *CHEAP, "--json", "fit.json")
    assert table.exit_code == 1 and "did not converge" in table.stderr
    assert "not converged" in table.stdout
    assert parse((folder / "fit.json").read_text())["converged"] is False


def test_an_interval_that_does_not_converge_says_so(one_step):
    result = invoke("interval", *CHEAP, "--poi", "sin2_theta_w", "--json", "-")
    assert result.exit_code == 1
    assert "did not converge" in result.stderr and len(result.stderr.splitlines()) == 1
    assert parse(result.stdout)["converged"] is False


# ------------------------------------------------------------------------------------------------------- as a process


def run_process(*words, **options):
    command = [sys.executable, "-m", "cevjax.cli", *map(str, words)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)


def test_a_process_writes_nothing_but_json(tmp_path):
    done = run_process("predict", *CHEAP, "--plot", "p.png", "--json", "-", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert parse(done.stdout)["command"] == "predict"
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_process_that_refuses_shows_no_traceback(tmp_path):
    done = run_process("xsec", "CsI", "--energy-mev", 30, "--recoil-kev", "1:inf:4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "--recoil-kev" in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_command_leaves_no_file(tmp_path, name):
    """The signal arrives while an output is being written."""
    script = f"""
import os, signal
from cevjax import cli, results

def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.{name})
    signal.pause()

cli.app = lambda: results.write_atomically("result.json", write)
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + getattr(signal, name)
    assert "Interrupted: no output was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.strip() == version("cevjax")


# --- other data ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_must_be_known_of_the_data_is_said_by_every_command():
    for words in (("predict",), ("fit",), ("interval", "--poi", "sin2_theta_w", "--cl", 0.6827)):
        command, *options = words
        assert "third party" in succeed(command, "conus-plus-2025", *options).stdout
        assert "third party" in output(command, "conus-plus-2025", *options)["remarks"]["conus-plus-2025"]
    assert output("predict", *CHEAP)["remarks"] == {}
    assert "third party" in succeed("data", "info", "conus-plus-2025").stdout


def test_several_data_sets_in_one_fit():
    data = output("fit", "conus-plus-2025", "dresden-ii-2022:quenching=ybe", "--free", "sin2_theta_w")
    assert data["datasets"] == ["conus-plus-2025", "dresden-ii-2022"] and data["converged"]
    assert data["n_bins"] == 149 and set(data["expected"]) == set(data["datasets"])


OWN = """
[target]
material = "Ge"
mass_kg = 3.0
[flux]
source = "reactor"
power_gw = 3.0
baseline_m = 20.0
fission_fractions = {U235 = 1.0}
relative_error = 0.05
[exposure]
days = 100
[quenching]
model = "lindhard"
k = 0.16
[resolution]
kind = "gaussian"
noise_kev = 0.05
[bins]
low = 0.2
high = 0.6
number = 8
[[backgrounds]]
name = "flat"
shape = "flat"
rate_per_kev_kg_day = 10.0
"""


def refuse(*words):
    result = invoke(*words)
    assert result.exit_code == 2 and result.stdout == ""
    return " ".join(result.stderr.split())


def test_a_folder_in_place_of_a_name(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "measurement.toml").write_text(OWN)
    data = output("fit", folder, "--free", "sin2_theta_w")
    assert data["datasets"] == ["mine"] and data["chi2_min"] == pytest.approx(0, abs=1e-6)
    assert data["parameters"]["sin2_theta_w"]["value"] == pytest.approx(0.23857, abs=1e-5)
    assert "forecast" in data["remarks"]["mine"]
    both = output("predict", f"{folder}:form_factor=helm", "conus-plus-2025")["datasets"]
    assert both["mine"]["axes"]["E_keVee"][0] == 0.2 and len(both) == 2


def test_choices_are_part_of_every_output():
    words = ("dresden-ii-2022:quenching=ybe,flux=efk",)
    assert output("predict", *words)["choices"] == {"dresden-ii-2022": {"quenching": "ybe", "flux": "efk"}}
    shown = succeed("predict", *words).stdout
    assert "dresden-ii-2022 (statistic=default, quenching=ybe, flux=efk)" in shown and "counts/(3 kg d)" in shown


def test_asimov_data_are_called_so(tmp_path):
    words = ("conus-plus-2025", "--asimov", "sin2_theta_w=0.25")
    assert "Asimov data, the expectation at sin2_theta_w = 0.25" in succeed("fit", *words).stdout
    remark = output("fit", *words)["remarks"]["conus-plus-2025"]
    assert "third party" in remark and "Asimov data, the expectation at sin2_theta_w = 0.25" in remark


def test_no_probability_without_degrees_of_freedom():
    words = ("fit", "coherent-csi-2017:statistic=1711.09773", "--free", "sin2_theta_w")
    data = output(*words)
    assert data["ndof"] == 0 and data["p_value"] is None
    assert "0 degrees of freedom; converged" in succeed(*words).stdout


def test_a_parameter_without_effect_is_no_degree_of_freedom():
    """The collaboration's own fit of LAr has no interaction in it."""
    data = output("fit", "coherent-lar-2020:statistic=2003.10630", "--free", "sin2_theta_w")
    assert data["ndof"] == 959 and data["other_minima"] == []
    assert data["parameters"]["sin2_theta_w"]["error"] is None and "does not depend on sin2" in data["message"]


def test_paths_with_colons_and_files(tmp_path):
    folder = tmp_path / "a:b c"
    folder.mkdir()
    (folder / "measurement.toml").write_text(OWN)
    for words in (str(folder), f"{folder}/", f"{folder}:form_factor=fermi", str(folder / "measurement.toml")):
        assert list(output("predict", words)["datasets"]) == ["a:b c"]


def test_a_folder_that_is_none_or_wrong(tmp_path):
    assert "measurement.toml" in refuse("fit", tmp_path)
    assert "measurement.toml" in refuse("fit", ".")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "measurement.toml").write_text(OWN.replace("mass_kg = 3.0", "mas_kg = -3.0"))
    message = refuse("fit", folder)
    assert "measurement.toml" in message and "mas_kg" in message and "Did you mean 'mass_kg'" in message
