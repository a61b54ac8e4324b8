"""The report of many hosts."""

from mpilayer.cli.doctor import shortened
from mpilayer.doctor.finding import NOTE, OK, Finding


def a_finding(number, verdict=OK, subject="host"):
    return Finding("ranks", subject, verdict, f"host {number}")


def test_many_hosts_are_shortened():
    many = [a_finding(number) for number in range(9)]
    many[6] = a_finding(6, NOTE)
    found = [finding.found for finding in shortened(many)]
    assert found == [
        *(f"host {number}" for number in (0, 1, 2, 3, 6)),
        "and 4 more like these",
    ]


def test_few_hosts_are_told_in_full():
    few = [a_finding(number) for number in range(4)] + [a_finding(4, subject="x")]
    assert shortened(few) == few
