"""Studies: reading them, comparing, running, resuming; and that those of the package are what their files say."""

import json
import math
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cevjax import studies
from cevjax.cli import app
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.studies import AGREE, DIFFERS, FAILED, UNPUBLISHED, WITHIN, Comparison, Row, compare

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands
NAMES = studies.study_names()

SMALL = """
datasets = ["conus-plus-2025"]

[study]
title = "A small one"
source = "nowhere"

[study.tolerance.chi2_min]
agree = 0.02
within = 0.1
why = "printed to 2 digits"

[variant.hmk]
datasets = ["conus-plus-2025:flux=hmk"]

[variant.efk]
datasets = ["conus-plus-2025:flux=efk"]

[[run]]
name = "sm"
command = "fit"

[[row]]
run = "sm"
what = "standard model"
of = "chi2_min"
published = 7.38
quick = true

[[run]]
name = "angle"
command = "interval"
poi = "sin2_theta_w"
cl = [0.6827, 0.9]

[[row]]
run = "angle"
of = "fall"
than = "sm"

[[run]]
name = "plane"
command = "scan"
grid = { sin2_theta_w = "0.2:0.3:5" }
out = "scans/{name}.nc"

[[run]]
name = "picture"
command = "contours"
files = ["scans/plane.nc"]
plot = "figures/{name}.png,pdf"
"""


def write(folder, text=SMALL):
    folder.mkdir(exist_ok=True)
    (folder / "analysis.toml").write_text(text)
    return folder


def read(folder):
    return studies.read_study(str(folder), COMMANDS)


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_study_is_read(tmp_path):
    study = read(write(tmp_path / "small"))
    assert (study.name, study.title, study.source) == ("small", "A small one", "nowhere")
    assert [run.name for run in study.runs] == ["sm", "angle", "plane", "picture"]
    assert study.runs[3].words == ["contours", "scans/plane.nc", "--plot", "figures/picture.png,pdf"]
    first, second = study.rows
    assert first == Row("standard model", "sm", "chi2_min", published=7.38, agree=0.02, within=0.1,
                        why="printed to 2 digits", quick=True)  # fmt: skip
    assert (second.what, second.of, second.than, second.published) == ("angle", "fall", "sm", None)


def test_the_quick_subset_has_the_runs_it_needs(tmp_path):
    text = SMALL.replace('than = "sm"', 'than = "sm"\nquick = true').replace("7.38\nquick = true", "7.38")
    quick = read(write(tmp_path / "small", text)).quick()
    assert [row.run for row in quick.rows] == ["angle"] and [run.name for run in quick.runs] == ["sm", "angle"]


def test_runs_without_rows_are_shown_once(tmp_path):
    """By themselves, or in the table of `compare`."""
    bare = SMALL.replace('[[row]]\nrun = "angle"\nof = "fall"\nthan = "sm"\n', "")
    assert [(row.run, row.of) for row in read(write(tmp_path / "small", bare)).rows] == [
        ("sm", "chi2_min"), ("angle", "intervals"),
    ]  # fmt: skip
    table = bare + '[[run]]\nname = "all"\ncommand = "compare"\nfiles = ["runs/an*.json"]\ntable = "figures/all.md"\n'
    assert [row.run for row in read(write(tmp_path / "small", table)).rows] == ["sm"]
    named = read(write(tmp_path / "small", SMALL + table[len(bare) :]))
    assert [row.run for row in named.rows] == ["sm", "angle"]


def test_rows_of_variants(tmp_path):
    text = SMALL.replace('name = "sm"\n', 'name = "sm"\nvariants = ["hmk", "efk"]\n')
    text = text.replace('datasets = ["conus-plus-2025"]\n', "").replace("7.38", "{ efk = 7.4 }")
    text = text.replace('poi = "sin', 'variants = ["efk"]\npoi = "sin').replace(
        "grid = {", 'variants = ["efk"]\ngrid = {'
    )
    study = read(write(tmp_path / "small", text.replace("plane.nc", "plane-efk.nc")))
    assert [(row.what, row.run, row.published) for row in study.rows] == [
        ("standard model, hmk", "sm-hmk", None),
        ("standard model, efk", "sm-efk", 7.4),
        ("angle, efk", "angle-efk", None),
    ]
    assert study.rows[2].than == "sm-efk"
    assert study.runs[0].words == ["fit", "conus-plus-2025:flux=hmk"]


def test_variants_of_variants_count_from_the_nearest(tmp_path):
    """A run in a variant of two parts is compared with the run in the first of them, where there is none in both."""
    text = SMALL.replace('datasets = ["conus-plus-2025"]\n', "") + "\n[variant.low]\nset = { sin2_theta_w = 0.2 }\n"
    text = text.replace('name = "sm"\n', 'name = "sm"\nvariants = ["efk"]\n')
    text = text.replace('poi = "sin2_theta_w"', 'variants = [["efk"], ["low"]]\npoi = "R_n_Ge74"')
    text = text.replace("grid = {", 'variants = ["efk"]\ngrid = {').replace("plane.nc", "plane-efk.nc")
    study = read(write(tmp_path / "small", text))
    assert [(row.run, row.than) for row in study.rows] == [("sm-efk", ""), ("angle-efk-low", "sm-efk")]


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ('title = "A small one"', "", InvalidValueError, ["[study]", "`title`"]),
        ('run = "sm"\nwhat', 'run = "sn"\nwhat', UnknownNameError, ["'sn'", "'sm'"]),
        ('of = "fall"', 'off = "fall"', UnknownNameError, ["'off'", "'of'"]),
        ('of = "fall"', "", InvalidValueError, ["[[row]]", "`of`"]),
        ('than = "sm"', 'than = "smm"', UnknownNameError, ["'smm'", "'sm'"]),
        ("agree = 0.02\n", "", InvalidValueError, ["`agree`", "'sm'"]),
        ('why = "printed to 2 digits"', "", InvalidValueError, ["`why`"]),
        ("agree = 0.02\n", 'agree = "much"\n', InvalidValueError, ["`agree`", "'much'"]),
        ("published = 7.38", "published = { hmk = 7.38 }", UnknownNameError, ["'hmk'"]),
        ("published = 7.38", 'published = "low"', InvalidValueError, ["`published`", "'low'"]),
        ("published = 7.38", "published = [1, 2, 3]", InvalidValueError, ["`published`", "[1, 2, 3]"]),
        ('command = "fit"', 'command = "fit"\njson = "a.json"', InvalidValueError, ["`json`", "'sm'"]),
        ('name = "sm"\n', 'name = "sm"\nvariants = ["emk"]\n', UnknownNameError, ["'emk'", "'hmk'"]),
        ('name = "sm"\n', 'name = "sm"\nvariants = "efk"\n', InvalidValueError, ["`variants`", "'efk'"]),
        ('name = "angle"', 'name = "sm"', InvalidValueError, ["sm", "different names"]),
        ("[variant.hmk]", "[variant.hmk.more]", UnknownNameError, ["'more'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_study_is_said(tmp_path, old, new, error, words):
    assert SMALL.count(old) >= 1
    text = SMALL.replace(old, new, 1)
    if "hmk.more" in new:
        text = text.replace('name = "sm"\n', 'name = "sm"\nvariants = ["hmk"]\n')
    with pytest.raises(error) as caught:
        read(write(tmp_path / "small", text))
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_unknown_study():
    with pytest.raises(UnknownNameError, match=re.escape("'2211.11905'")):
        studies.read_study("2211.11950", COMMANDS)


# ----------------------------------------------------------------------------------------------------------- comparing


def row(published, agree=0.1, within=0.5, of="chi2_min", **other):
    return Row("it", "run", of, published=published, agree=agree, within=within, **other)


@pytest.mark.parametrize(
    ("published", "ours", "difference", "verdict"),
    [
        (83.2, 83.25, 0.05, AGREE),
        (83.2, 82.8, -0.4, WITHIN),
        (83.2, 84.0, 0.8, DIFFERS),
        (None, 84.0, None, UNPUBLISHED),
    ],
)
def test_verdicts_of_numbers(published, ours, difference, verdict):
    found = compare(row(published), {"run": {"chi2_min": ours}})
    assert found.ours == ours and found.verdict == verdict
    assert found.difference == (None if difference is None else pytest.approx(difference))


@pytest.mark.parametrize(
    ("published", "ours", "difference", "verdict"),
    [
        ([[0.1, 0.3]], [[0.15, 0.28]], 0.05, AGREE),
        ([[0.1, 0.3]], [[0.15, -0.1]], -0.4, WITHIN),
        ([[0.1, 0.3]], [[0.1, 1.3]], 1.0, DIFFERS),
        ([[0.1, 0.3]], [[0.1, 0.2], [0.25, 0.3]], None, DIFFERS),
        ([[None, 0.3]], [[None, 0.3]], 0.0, AGREE),
        ([[None, 0.3]], [[0.0, 0.3]], None, DIFFERS),
        ([[0.1, 0.3]], [[None, 0.3]], None, DIFFERS),
    ],
)
def test_verdicts_of_pieces(published, ours, difference, verdict):
    found = compare(row(published, of="intervals"), {"run": {"intervals": ours}})
    assert found.verdict == verdict
    assert found.difference == (None if difference is None else pytest.approx(difference))


def test_quantities():
    result = {
        "chi2_min": 5.0,
        "intervals": [[None, 1e-9], [2e-9, 4e-9]],
        "levels": [{"intervals": [[1.0, 2.0]]}],
        "parameters": {"a": {"value": 3.0}},
    }
    results = {"run": result, "before": {"chi2_min": 7.5}}

    def ours(of, **other):
        return compare(Row("it", "run", of, **other), results).ours

    assert ours("fall", than="before") == 2.5
    assert ours("upper", unit=1e-9) == pytest.approx(4.0) and ours("lower") is None
    assert ours("levels.0.intervals") == [[1.0, 2.0]] and ours("levels.0.intervals.-1.1") == 2.0
    assert ours("parameters.a.value") == 3.0
    with pytest.raises(UnknownNameError, match="'b'"):
        ours("parameters.b.value")
    with pytest.raises(UnknownNameError, match="'3'"):
        ours("intervals.3")
    with pytest.raises(InvalidValueError, match=r"chi2_min\.more"):
        ours("chi2_min.more")


def test_a_failed_run_is_a_failed_row():
    assert compare(row(1.0), {"run": None}).verdict == FAILED
    assert compare(row(1.0, of="fall", than="before"), {"run": {"chi2_min": 1.0}, "before": None}).verdict == FAILED


def test_tolerances_in_percent(tmp_path):
    text = SMALL.replace("agree = 0.02", 'agree = "2 %"').replace("within = 0.1", 'within = "10%"')
    first = read(write(tmp_path / "number", text)).rows[0]
    assert (first.agree, first.within) == (pytest.approx(0.1476), pytest.approx(0.738))
    pieces = 'of = "intervals"\npublished = [[-inf, 1], [2, 4.5]]\nagree = "2 %"\nwhy = "x"'
    text = text.replace('of = "fall"\nthan = "sm"', pieces)
    second = read(write(tmp_path / "pieces", text)).rows[1]
    assert second.published == [[None, 1.0], [2.0, 4.5]] and second.agree == pytest.approx(0.05)


def test_the_table_of_a_readme():
    text = "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n<!-- a.md -->\n<!-- /a.md -->\n"
    both = [Comparison(row(83.2), 83.25, 0.05, AGREE), Comparison(row(None), [[None, 0.2]])]
    parts = {**studies.tables(both), "a.md": "other", "b.md": "none"}
    assert parts["ours"].splitlines()[2:] == ["| it | [open, 0.2] |"]
    found = studies.fill(text, parts)
    lines = found.splitlines()
    assert lines[:2] == ["before", "<!-- results -->"] and lines[5:7] == ["<!-- /results -->", "after"]
    assert lines[4] == "| it | 83.2 | 83.25 | +0.05 | agree |"
    assert lines[7:] == ["<!-- a.md -->", "other", "<!-- /a.md -->"]
    assert studies.fill(found, parts) == found
    assert studies.fill("no marks", parts) == "no marks"


# ------------------------------------------------------------------------------------------------------------- running


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_reproduce(tmp_path, monkeypatch):
    """A study is run, its results are kept, used again, and made anew when asked or when its words change."""
    monkeypatch.setenv("CEVJAX_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "small")
    (tmp_path / "out" / "small").mkdir(parents=True)
    (tmp_path / "out" / "small" / "README.md").write_text("<!-- results -->\n<!-- /results -->\n")
    first = invoke("reproduce", folder, "--out", tmp_path / "out", "--json", tmp_path / "all.json")
    assert first.exit_code == 0, first.output
    assert "[4/4] small: picture" in first.stderr and "1 agree, 1 not published" in first.stdout
    results = json.loads((tmp_path / "out" / "small" / "results.json").read_text())
    assert json.loads((tmp_path / "all.json").read_text()) == {"small": results}
    chi2, fall = results["rows"]
    assert chi2["ours"] == pytest.approx(7.375, abs=0.001) and chi2["verdict"] == AGREE
    angle = results["runs"]["angle"]
    assert fall["ours"] == pytest.approx(chi2["ours"] - angle["chi2_min"]) and fall["verdict"] == UNPUBLISHED
    assert [level["cl"] for level in angle["levels"]] == [0.6827, 0.9]
    assert {p.name for p in (tmp_path / "out" / "small").iterdir()} == {
        "README.md", "results.json", "picture.png", "picture.pdf",
    }  # fmt: skip
    assert "| standard model | 7.38 |" in (tmp_path / "out" / "small" / "README.md").read_text()

    again = invoke("reproduce", folder, "--quick", "--json", "-")
    assert again.exit_code == 0 and again.stderr == ""
    assert [r["ours"] for r in json.loads(again.stdout)["small"]["rows"]] == [chi2["ours"]]
    anew = invoke("reproduce", folder, "--quick", "--anew")
    assert "[1/1] small: sm" in anew.stderr
    (tmp_path / "cache" / "studies" / "small" / "figures" / "picture.pdf").unlink()
    mended = invoke("reproduce", folder)
    assert mended.stderr.count("small:") == 1 and "small: picture" in mended.stderr
    write(folder, SMALL.replace("0.2:0.3:5", "0.2:0.3:6"))
    changed = invoke("reproduce", folder)
    assert [name for name in ("sm", "angle", "plane", "picture") if f"small: {name}" in changed.stderr] == [
        "plane", "picture",
    ]  # fmt: skip


def test_a_run_that_fails_does_not_end_the_study(tmp_path, monkeypatch):
    monkeypatch.setenv("CEVJAX_CACHE", str(tmp_path / "cache"))
    text = SMALL[: SMALL.index('[[run]]\nname = "plane"')].replace('poi = "sin2_theta_w"', 'poi = "sin2_theta"')
    found = invoke("reproduce", write(tmp_path / "small", text), "--json", tmp_path / "all.json")
    assert found.exit_code == 1 and "'sin2_theta_w'" in found.stderr and "angle" in found.stderr
    rows = json.loads((tmp_path / "all.json").read_text())["small"]["rows"]
    assert [r["verdict"] for r in rows] == [AGREE, FAILED]


def test_reproduce_lists_and_refuses(tmp_path):
    listed = json.loads(invoke("reproduce", "--json", "-").stdout)["studies"]
    assert [entry["name"] for entry in listed] == list(NAMES) and all(entry["title"] for entry in listed)
    wrong = invoke("reproduce", "2211.1190")
    assert wrong.exit_code == 2 and "Did you mean '2211.11905'?" in wrong.stderr
    both = invoke("reproduce", "2211.11905", "--quick", "--out", tmp_path)
    assert both.exit_code == 2 and "`--out`" in both.stderr


# ------------------------------------------------------------------------------------------- the studies of the package


def committed(name):
    return json.loads((ROOT / "experiments" / name / "results.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_study(name):
    """Rows, words and tolerances in the results are those of the analysis file, and the README shows them."""
    study, results = studies.read_study(name, COMMANDS), committed(name)
    comparisons = []
    for given, found in zip(study.rows, results["rows"], strict=True):
        numbers = {key: found.pop(key) for key in ("ours", "difference", "verdict")}
        assert Row(**found) == given
        comparisons.append(Comparison(given, **numbers))
        again = compare(given, results["runs"])
        assert again.verdict == numbers["verdict"] != FAILED
        assert studies.show(again.ours) == studies.show(numbers["ours"])
    for run in study.runs:
        assert run.words[0] in ("contours", "compare") or results["runs"][run.name]["words"] == run.words
    readme = (ROOT / "experiments" / name / "README.md").read_text()
    parts = studies.tables(comparisons)
    for file in studies.to_publish(study):
        assert (ROOT / "experiments" / name / file.name).is_file(), file
        if file.suffix == ".md":
            parts[file.name] = (ROOT / "experiments" / name / file.name).read_text().rstrip()
    assert studies.fill(readme, parts) == readme and any(f"<!-- {part} -->" in readme for part in parts)
    assert "<!-- results -->" in readme or all(r.published is None for r in study.rows)


def numbers(value):
    """All numbers of a result in order, an open end as infinite."""
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [math.inf if value is None else value]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if studies.read_study(name, COMMANDS).quick().rows])
def test_the_quick_subset_is_reproduced(name, tmp_path):
    """Numbers and verdicts, computed anew, are those in the repository."""
    found = invoke("reproduce", name, "--quick", "--anew", "--json", tmp_path / "found.json")
    assert found.exit_code == 0, found.output
    rows = json.loads((tmp_path / "found.json").read_text())[name]["rows"]
    expected = [r for r in committed(name)["rows"] if r["quick"]]
    assert rows and [r["what"] for r in rows] == [r["what"] for r in expected]
    for new, old in zip(rows, expected, strict=True):
        assert numbers(new["ours"]) == pytest.approx(numbers(old["ours"]), rel=2e-3, abs=2e-3), new["what"]
        assert new["verdict"] == old["verdict"], new["what"]
