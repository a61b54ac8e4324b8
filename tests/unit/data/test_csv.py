"""Tables that are written come back as they were."""

import numpy as np
import pytest

from mpilayer.data.csv import csv_text, read_csv
from mpilayer.data.preparation import Preparation
from mpilayer.data.sources import Names, read_source
from mpilayer.data.split import Split
from mpilayer.errors import DataError, RunWarning

# Numbers of all magnitudes, and those that few digits cannot tell apart.
X = np.array(
    [
        [0, -0.0, 1, 1 / 3],
        [1e-45, 1.1754942e-38, 3.4028235e38, -7],
        np.nextafter(np.float32([1, 9e15, 0.1, 16777216]), np.float32(0)),
    ],
    np.float32,
)


@pytest.mark.parametrize(
    "labels", [None, np.array([3, -1, 2**40]), np.float32([0.1, -3e38, 1 / 3])]
)
def test_round_trip(tmp_path, labels):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X, labels), Preparation()))
    found = read_csv(path)
    assert found.columns == ("unit_1", "unit_2", "unit_3", "unit_4")
    np.testing.assert_array_equal(found.x.astype(np.float32), X)
    assert (found.labels is None) == (labels is None)
    kind = None if labels is None else labels.dtype
    np.testing.assert_array_equal(np.asarray(found.labels, kind), labels)
    names = Preparation(("a", "b, c", 'd"e', "F"), "", ("cat, big", "dog"))
    path.write_text(csv_text(Split(X, np.array([1, 0, 1])), names))
    found = read_csv(path)
    assert found.columns == names.columns
    assert found.labels.tolist() == ["dog", "cat, big", "dog"]


SAMPLES = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
ONE = "line 1"
FIRST = "column 1, left out"
TABLES = [
    # As DataFrame(x).to_csv(index=False) writes it, with and without names.
    ("0,1\n.1,.2\n.3,.4\n.5,.6\n", ONE, "none", "none"),
    ("a,b\n.1,.2\n.3,.4\n.5,.6\n", ONE, "none", "none"),
    # As to_csv() does, once and twice, and R's write.csv.
    (",a,b\n0,.1,.2\n1,.3,.4\n2,.5,.6\n", ONE, FIRST, "none"),
    (",0,1\n7,.1,.2\n3,.3,.4\nx,.5,.6\n", ONE, FIRST, "none"),
    (
        "Unnamed: 0.1,Unnamed: 0,a,b\n0,0,.1,.2\n1,1,.3,.4\n2,2,.5,.6\n",
        *(ONE, "columns 1 to 2, left out", "none"),
    ),
    ('"","a","b"\n"1",.1,.2\n"2",.3,.4\n"3",.5,.6\n', ONE, FIRST, "none"),
    (",a,label,b\n0,.1,3,.2\n1,.3,4,.4\n2,.5,3,.6\n", ONE, FIRST, "column 3"),
    ("\n0,1\n.1,.2\n.3,.4\n.5,.6\n", "line 2", "none", "none"),
    (".1,.2\n.3,.4\n.5,.6\n", "none", "none", "none"),
    ('".1",".2"\n".3",".4"\n".5",".6"\n', "none", "none", "none"),
    (".1, .2\n\n.3 ,.4\n.5,.6", "none", "none", "none"),
    ('\ufeff"a","b"\r\n.1,.2\r\n.3,.4\r\n.5,.6\r\n', ONE, "none", "none"),
    ("label,a,b\n5,.1,.2\n6,.3,.4\n5,.5,.6\n", ONE, "none", "column 1"),
]


@pytest.mark.parametrize(("text", "header", "index", "labels"), TABLES)
def test_header_index_and_labels(tmp_path, text, header, index, labels):
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = read_csv(path)
    np.testing.assert_array_equal(found.x, SAMPLES)
    assert found.remark == f"header: {header}; index: {index}; labels: {labels}"


REFUSED = [
    ("0,5\n1,25\n-2,75\n", "with a decimal comma: '0,5'"),
    ("a\n0,5\n1,25\n", "found 1 names and 2 columns.*points"),
    ("0,5;1,5\n2,5;3,5\n", "decimal points.*line 1 has '5;1'"),
    ("0,.1,.2\n1,.3,.4\n2,.5,.6\n", "numbers of the rows in the first"),
    ("1,.1,.2\n2,.3,.4\n3,.5,.6\n", "numbers of the rows in the first"),
    ("label,a,Label\n1,.5,2\n", "one column at most.*found 2"),
    ("a,,b\n1,2,3\n", "must have names.*none for column 2"),
    ("a,b,\n1,2,\n", "must have names.*none for column 3"),
    (",,\n,,\n", "at least two|must hold|one row and column"),
    ('"' + "a" * 200_000, "cannot be read.*field larger"),
    (bytes(range(256)), "must be a text file"),
    ("", "at least one row of numbers; found none"),
    ("a,b\n\n", "at least one row"),
    ("1,2\n3,4\n5,six\n", "line 3 has 'six'"),
    ("a,b\n1,2\n\n3,\n", "line 4 has ''"),
    ("1,2\n3\n", "line 2 has 1 cells, those before 2"),
    ("1,2\n3,nan\n", "row 1, column 1 is nan"),
    ("a,label\n1,0.5\n2,inf\n", "finite.* that of row 1 is inf"),
    ("label\n1\n", "at least one row and column"),
    ("1,2,x\n", "line 1 has 'x' in column 3.* --labels 3"),
    # With the name of the labels' column.
    (
        "a,b,species\n1,2,x\n",
        "unknown column 'specis'; choose from a, b, species. Did you mean 'species'",
        "specis",
    ),
    ("1,2\n3,4\n", "number of a column, 1 to 2,.* got '3'", "3"),
    ("1,2\n3,4\n", "number of a column, 1 to 2,.*'b'", "b"),
    ("a,k,K\n1,2,3\n", "one column at most must be called 'k'; found 2", "k"),
    ("a,k\n1,x\n2,\n", "must have a label; line 3 has ''", "k"),
    ("a,k\n1,1\n2,nan\n", "must have a label; line 3 has 'nan'", "k"),
    (
        "a,b,k\n1,2,x\n1,low,y\n",
        r"line 3 has 'low' in column b\. .* classes, give --labels b; else leave it",
        "k",
    ),
    ("a,b,k\n1,,x\n", r"line 2 has '' in column b\. Mend", "k"),
]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tables(tmp_path, case):
    text, message, *labels = case
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path / "a.csv", Names(*labels))


LABELLED = [
    ("a,b,kind\n.1,.2,x\n.3,.4,y\n.5,.6,x\n", "KIND", list("xyx")),
    (".1,.2,x\n.3,.4,y\n.5,.6,x\n", "3", list("xyx")),
    ("kind,a,b\n7,.1,.2\n8,.3,.4\n7,.5,.6\n", "kind", [7, 8, 7]),
    (",a,t,b\n0,.1,.5,.2\n1,.3,1,.4\n2,.5,2,.6\n", "t", [0.5, 1, 2]),
    ('a,b,kind\n.1,.2,"x, y"\n.3,.4,"z"\n.5,.6,z\n', "kind", ["x, y", *"zz"]),
    ("1990,2000,t\n.1,.2,3\n.3,.4,4\n.5,.6,4\n", "t", [3, 4, 4]),
    ("a,b,label,c\n.1,.2,3,x\n.3,.4,4,y\n.5,.6,3,y\n", "c", list("xyy")),
    ("a,label,b\n.1,x,.2\n.3,y,.4\n.5,y,.6\n", "", list("xyy")),
    # Whole numbers that a name says are no numbers of the rows.
    ("1,.1,.2\n2,.3,.4\n3,.5,.6\n", "1", [1, 2, 3]),
]


@pytest.mark.parametrize(("text", "labels", "expected"), LABELLED)
def test_named_labels(tmp_path, text, labels, expected):
    (tmp_path / "a.csv").write_text(text)
    found = read_csv(tmp_path / "a.csv", labels)
    assert found.labels.tolist() == expected
    np.testing.assert_array_equal(found.x[:, :2], SAMPLES)


def test_labels_that_need_not_be_there(tmp_path):
    path = tmp_path / "a.csv"
    for text, labels in (("a,b\n1,2\n", "k"), (".1,2\n", "3")):
        path.write_text(text)
        assert read_csv(path, labels, needed=False).labels is None
    path.write_text("a,Target\n1,2\n")
    with pytest.warns(RunWarning, match=r"'Target' is taken for .* --labels Target\."):
        assert read_csv(path).labels is None


@pytest.mark.parametrize(("mark", "words"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("labels", ["", "species"])
def test_other_separators(tmp_path, mark, words, labels):
    path = tmp_path / "other.csv"
    lines = (("a", "b", "species"), ("1.5", "2", "setosa"))
    path.write_text("\n".join(map(mark.join, lines)))
    words = f"{path}: cells must be separated by commas; those of line 1 .* by {words}"
    with pytest.raises(DataError, match=words):
        read_csv(path, labels)
    path.write_text("a,species\n1,x;y\n")
    assert read_csv(path, "species").labels.tolist() == ["x;y"]
