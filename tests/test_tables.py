"""Tables on disk: what is written is read back, what is malformed is named, and thinning keeps its word."""

import hashlib
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cevjax.errors import ReleaseFileError
from cevjax.tables import hashes, read_table, thin, write_manifest, write_table

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize("delimiter", [",", " ", "\t", ";"])
@given(rows=hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=FINITE))
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_back_exactly(folder, delimiter, rows):
    path = folder / "table.csv"
    write_table(path, "E/MeV, whatever", rows, delimiter)
    assert path.read_text().startswith("# E/MeV, whatever\n") and path.read_text().endswith("\n")
    found = read_table(path, rows.shape[1], delimiter=delimiter if delimiter in ",;" else None)
    np.testing.assert_array_equal(found, rows)


def test_written_tables_are_of_any_numbers(folder):
    path = folder / "mixed.csv"
    write_table(path, "x", [[1, np.float32(0.5)], [np.int64(-3), 1e-300]])
    assert path.read_text() == "# x\n1.0,0.5\n-3.0,1e-300\n"


def lines(folder, text):
    path = folder / "text.txt"
    path.write_text(text)
    return path


def test_comments_blank_lines_and_headers_are_skipped(folder):
    path = lines(folder, "E rho\nunits MeV\n\n1 2 # a remark\n# a line\n  3   4\n")
    np.testing.assert_array_equal(read_table(path, 2, skip=2), [[1, 2], [3, 4]])
    with pytest.raises(ReleaseFileError, match=r"text.txt, line 1: expected 2 finite numbers, but found 'E rho'"):
        read_table(path, 2)
    with pytest.raises(ReleaseFileError, match=r"text.txt, line 2: expected 2 finite numbers"):
        read_table(path, 2, skip=1)
    # skipped lines count as lines, and numbers among them are not read
    np.testing.assert_array_equal(read_table(lines(folder, "1 2\n3 4\n"), skip=1), [[3, 4]])


def test_the_first_line_says_how_many_numbers(folder):
    assert read_table(lines(folder, "1 2 3\n4 5 6\n")).shape == (2, 3)
    with pytest.raises(ReleaseFileError, match="line 3: expected 3 finite numbers, but found '4 5'"):
        read_table(lines(folder, "1 2 3\n# no\n4 5\n"))


@pytest.mark.parametrize("bad", ["1 2", "1 2 3 4", "1 two 3", "1 nan 3", "1 2 inf", "1,2,3"])
def test_malformed_lines_are_named(folder, bad):
    path = lines(folder, f"1 2 3\n\n{bad}\n")
    with pytest.raises(ReleaseFileError, match=r"text.txt, line 3: expected 3 finite numbers \(a, b, c\), but found"):
        read_table(path, 3, "a, b, c")


def test_files_without_a_table(folder):
    with pytest.raises(ReleaseFileError, match="nowhere.txt does not exist; expected a table of pairs"):
        read_table(folder / "nowhere.txt", 2, "pairs")
    with pytest.raises(ReleaseFileError, match=r"holds no data; expected lines of numbers \(pairs\)"):
        read_table(lines(folder, "# nothing\n"), 2, "pairs")
    with pytest.raises(ReleaseFileError, match="holds no data"):
        read_table(lines(folder, "1 2\n"), 2, skip=1)
    (folder / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ReleaseFileError, match="image.png cannot be read as text"):
        read_table(folder / "image.png")
    with pytest.raises(ReleaseFileError, match="cannot be read as text"):
        read_table(folder)


def test_manifest(folder):
    (folder / "a.csv").write_bytes(b"1,2\n")
    (folder / "b+1sig.txt").write_bytes(b"\x00\xff")
    facts = {"name": "toy", "source": 'the "best" C:\\data', "release": ["https://x.org/{file}"], "none": []}
    of_release, of_derived = hashes([folder / "b+1sig.txt"]), hashes([folder / "a.csv"])
    assert of_release == {"b+1sig.txt": hashlib.sha256(b"\x00\xff").hexdigest()}
    assert of_derived == {"a.csv": hashlib.sha256(b"1,2\n").hexdigest()}
    write_manifest(folder, facts, of_derived, of_release)
    found = tomllib.loads((folder / "manifest.toml").read_text())
    assert found == {**facts, "sha256": {"release": of_release, "derived": of_derived}}
    write_manifest(folder, facts, of_derived)
    assert tomllib.loads((folder / "manifest.toml").read_text()) == {**facts, "sha256": {"derived": of_derived}}


CURVES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(float, n, elements=st.floats(0.01, 1)), hnp.arrays(float, n, elements=st.floats(-1, 1))
    )
)


@given(curve=CURVES, tolerance=st.floats(0, 0.5))
@settings(max_examples=100, deadline=None)
def test_thin_keeps_its_tolerance(curve, tolerance):
    table = np.column_stack([np.cumsum(curve[0]), curve[1]])
    kept = thin(table, tolerance)
    np.testing.assert_array_equal(kept[[0, -1]], table[[0, -1]])
    assert np.all(np.diff(kept[:, 0]) > 0)
    assert {tuple(row) for row in kept} <= {tuple(row) for row in table}
    distance = np.abs(np.interp(table[:, 0], kept[:, 0], kept[:, 1]) - table[:, 1])
    assert distance.max() <= tolerance + 1e-12


def test_thin_drops_what_lies_on_straight_lines():
    x = np.linspace(0, 10, 101)
    straight = np.column_stack([x, np.interp(x, [0, 3, 10], [0, 6, -1])])
    np.testing.assert_allclose(thin(straight, 1e-9), [[0, 0], [3, 6], [10, -1]], atol=1e-12)
    smooth = np.column_stack([x, np.sin(x)])
    sizes = [len(thin(smooth, tolerance)) for tolerance in (1e-6, 1e-3, 0.1)]
    assert sizes[0] > sizes[1] > sizes[2] >= 4
    np.testing.assert_array_equal(thin(straight[:2], 0.0), straight[:2])
