"""Tables that are written come back as they were."""

import numpy as np
import pytest

from mpilayer.data.csv import csv_text, read_csv
from mpilayer.data.preparation import Preparation
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


BARE = Preparation()


@pytest.mark.parametrize(
    "labels", [None, np.array([3, -1, 2**40]), np.float32([0.1, -3e38, 1 / 3])]
)
def test_round_trip(tmp_path, labels):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X, labels), BARE))
    found = read_csv(path)
    assert found.remark == (
        "header: line 1; index: none; labels: "
        f"{'none' if labels is None else 'column 5'}"
    )
    np.testing.assert_array_equal(found.x.astype(np.float32), X)
    if labels is None:
        assert found.labels is None
    else:
        np.testing.assert_array_equal(found.labels.astype(labels.dtype), labels)


def test_names_of_columns_and_classes_come_back(tmp_path):
    names = Preparation(("a", "b, c", 'd"e', "F"), "", ("cat, big", "dog"))
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X, np.array([1, 0, 1])), names))
    found = read_csv(path)
    assert found.columns == names.columns
    assert found.labels.tolist() == ["dog", "cat, big", "dog"]


def test_the_header_names_units_and_labels():
    text = csv_text(Split(X, np.arange(3)), BARE)
    lines = text.splitlines()
    assert lines[0] == "unit_1,unit_2,unit_3,unit_4,label"
    assert lines[1] == "0,-0,1,0.333333343,0"
    assert (len(lines), text[-1]) == (4, "\n")


def test_one_column_without_labels(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(Split(X[:, :1]), BARE))
    assert read_csv(path).x.shape == (3, 1)


SAMPLES = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
TABLES = {
    # As DataFrame(x).to_csv(index=False) writes it, with and without names.
    "numbered": ("0,1\n.1,.2\n.3,.4\n.5,.6\n", "line 1", "none", "none"),
    "named": ("a,b\n.1,.2\n.3,.4\n.5,.6\n", "line 1", "none", "none"),
    # As to_csv() does, once and twice, and R's write.csv.
    "index": (",a,b\n0,.1,.2\n1,.3,.4\n2,.5,.6\n", "line 1", "column 1", "none"),
    "numbered, index": (",0,1\n7,.1,.2\n3,.3,.4\nx,.5,.6\n", *"1c-"),
    "pandas twice": (
        "Unnamed: 0.1,Unnamed: 0,a,b\n0,0,.1,.2\n1,1,.3,.4\n2,2,.5,.6\n",
        *("line 1", "columns 1 to 2", "none"),
    ),
    "R": ('"","a","b"\n"1",.1,.2\n"2",.3,.4\n"3",.5,.6\n', *"1c-"),
    "index, labels": (",a,label,b\n0,.1,3,.2\n1,.3,4,.4\n2,.5,3,.6\n", *"1c3"),
    "blank line first": ("\n0,1\n.1,.2\n.3,.4\n.5,.6\n", "line 2", "none", "none"),
    "no header": (".1,.2\n.3,.4\n.5,.6\n", "none", "none", "none"),
    "quoted": ('".1",".2"\n".3",".4"\n".5",".6"\n', "none", "none", "none"),
}
WORDS = {"1": "line 1", "c": "column 1", "-": "none", "3": "column 3"}


@pytest.mark.parametrize("case", TABLES)
def test_header_index_and_labels(tmp_path, case):
    text, header, index, labels = TABLES[case]
    (tmp_path / "a.csv").write_text(text)
    found = read_csv(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.x, SAMPLES)
    header, index, labels = (WORDS.get(w, w) for w in (header, index, labels))
    index = index if index == "none" else f"{index}, left out"
    assert found.remark == f"header: {header}; index: {index}; labels: {labels}"


REFUSED = {
    "decimal commas": ("0,5\n1,25\n-2,75\n", "with a decimal comma: '0,5'"),
    "under a name": ("a\n0,5\n1,25\n", "found 1 names and 2 columns.*points"),
    "spreadsheet": ("0,5;1,5\n2,5;3,5\n", "decimal points.*line 1 has '5;1'"),
    "row numbers": ("0,.1,.2\n1,.3,.4\n2,.5,.6\n", "numbers of the rows in the first"),
    "from one": ("1,.1,.2\n2,.3,.4\n3,.5,.6\n", "numbers of the rows in the first"),
    "labels twice": ("label,a,Label\n1,.5,2\n", "one column at most.*found 2"),
    "no name amid others": ("a,,b\n1,2,3\n", "must have names.*none for column 2"),
    "a comma at the end": ("a,b,\n1,2,\n", "must have names.*none for column 3"),
    "commas only": (",,\n,,\n", "at least two|must hold|one row and column"),
    "an endless cell": ('"' + "a" * 200_000, "cannot be read.*field larger"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tables(tmp_path, case):
    text, message = REFUSED[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path / "a.csv")


LABELLED = {
    "by name": ("a,b,kind\n.1,.2,x\n.3,.4,y\n.5,.6,x\n", "KIND", list("xyx")),
    "by number": (".1,.2,x\n.3,.4,y\n.5,.6,x\n", "3", list("xyx")),
    "first, numbers": ("kind,a,b\n7,.1,.2\n8,.3,.4\n7,.5,.6\n", "kind", [7, 8, 7]),
    "real": (",a,t,b\n0,.1,.5,.2\n1,.3,1,.4\n2,.5,2,.6\n", "t", [0.5, 1, 2]),
    "quoted": ('a,b,kind\n.1,.2,"x, y"\n.3,.4,"z"\n.5,.6,z\n', "kind", ["x, y", *"zz"]),
    "a header of numbers": ("1990,2000,t\n.1,.2,3\n.3,.4,4\n.5,.6,4\n", "t", [3, 4, 4]),
    "not the usual": (
        "a,b,label,c\n.1,.2,3,x\n.3,.4,4,y\n.5,.6,3,y\n",
        "c",
        list("xyy"),
    ),
    "texts in the usual": ("a,label,b\n.1,x,.2\n.3,y,.4\n.5,y,.6\n", "", list("xyy")),
    "whole rows of a number": ("1,.1,.2\n2,.3,.4\n3,.5,.6\n", "1", [1, 2, 3]),
}


@pytest.mark.parametrize("case", LABELLED)
def test_named_labels(tmp_path, case):
    text, labels, expected = LABELLED[case]
    (tmp_path / "a.csv").write_text(text)
    found = read_csv(tmp_path / "a.csv", labels)
    assert found.labels.tolist() == expected
    np.testing.assert_array_equal(found.x[:, :2], SAMPLES)


def test_labels_that_need_not_be_there(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n.1,.2\n")
    assert read_csv(tmp_path / "a.csv", "kind", needed=False).labels is None
    (tmp_path / "a.csv").write_text("0.1,0.2\n")
    assert read_csv(tmp_path / "a.csv", "3", needed=False).labels is None


WRONG_LABELS = {
    "no such column": (
        "a,b,species\n1,2,x\n",
        "specis",
        "unknown column 'specis'; choose from a, b, species. Did you mean 'species'",
    ),
    "a number too large": ("1,2\n3,4\n", "3", "number of a column, 1 to 2,.* got '3'"),
    "a name without header": ("1,2\n3,4\n", "b", "number of a column, 1 to 2,.*'b'"),
    "twice": ("a,k,K\n1,2,3\n", "k", "one column at most must be called 'k'; found 2"),
    "missing": ("a,k\n1,x\n2,\n", "k", "must have a label; line 3 has ''"),
    "not a number": ("a,k\n1,1\n2,nan\n", "k", "must have a label; line 3 has 'nan'"),
    "another text": (
        "a,b,k\n1,2,x\n1,low,y\n",
        "k",
        r"line 3 has 'low' in column b\. .* classes, give --labels b; else leave it",
    ),
    "a text of no header": ("1,2,x\n", "", "line 1 has 'x' in column 3.* --labels 3"),
    "a missing number": ("a,b,k\n1,,x\n", "k", r"line 2 has '' in column b\. Mend"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_wrong_labels(tmp_path, case):
    text, labels, message = WRONG_LABELS[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv(tmp_path / "a.csv", labels)


def test_likely_labels_that_are_taken_for_samples_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("a,Target\n1,2\n")
    with pytest.warns(RunWarning, match=r"'Target' is taken for .* --labels Target\."):
        assert read_csv(tmp_path / "a.csv").labels is None


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
