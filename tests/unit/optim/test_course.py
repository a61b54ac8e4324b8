"""The course of a learning rate against plain formulas."""

from math import cos, pi

import pytest

from mpilayer.optim.course import BY_THE_END, course

# Done, of 10 in all, after a warm-up of 2.
AT = (0, 0.5, 1.99, 2, 2.5, 5, 8.75, 10)
PLAIN = {
    "constant": lambda _: 1.0,
    "exponential": lambda done: 0.5 ** int(done),
    "linear": lambda done: 1 - done / 8,
    "cosine": lambda done: (1 + cos(pi * done / 8)) / 2,
}


@pytest.mark.parametrize("name", PLAIN)
def test_courses(name):
    found = [course(name, done, 10, 0.5, 2) for done in AT]
    assert found[:3] == [0, 0.25, 0.995]
    expected = [PLAIN[name](done - 2) for done in AT[3:]]
    assert found[3:] == pytest.approx(expected, abs=1e-15)
    assert found[3] == 1
    alone = [course(name, done, 8, 0.5) for done in (0, 0.5, 3, 6.75, 8)]
    assert alone == found[3:]
    assert (found[-1] == 0) == (name in BY_THE_END)
