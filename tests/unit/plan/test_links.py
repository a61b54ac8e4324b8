"""Networks by name and by measurement; nonsense is refused."""

import json
from math import log2

import pytest

from mpilayer.errors import ConfigError
from mpilayer.plan.links import PRESETS, Link, Links, links_of


def doctor(hosts=("a", "b"), boots=("", ""), pairs=((1, "b", 5e-6, 2e9),)):
    names = ("rank", "host", "latency", "bandwidth")
    return {
        "facts": {
            "ranks": [
                {"host": h, "boot": b} for h, b in zip(hosts, boots, strict=True)
            ],
            "links": {"pairs": [dict(zip(names, p, strict=True)) for p in pairs]},
        }
    }


def write(folder, content):
    path = folder / "links.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    return path


def test_an_unknown_preset_names_all_others():
    with pytest.raises(ConfigError) as caught:
        links_of("myrinet", None, 1e10)
    assert all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[1, 2]",
        {"facts": {}},
        doctor(pairs=()),
        doctor(pairs=((1, "b", -1.0, 2e9),)),
        doctor(pairs=((1, "b", float("nan"), 2e9),)),
        doctor(pairs=((1, "b", "fast", 2e9),)),
        "[" * 100_000,
    ],
)
def test_nonsense_is_refused_in_words(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=r"--links must be .*doctor --json") as caught:
        links_of("", path, 1e10)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        links_of("", tmp_path / "missing.json", 1e10)


def test_what_was_measured_comes_before_the_preset(tmp_path):
    far = links_of("ethernet-1", write(tmp_path, doctor()), 1e10)
    assert far.network == Link(5e-6, 2e9)
    assert far.local == PRESETS["one-host"]
    near = write(tmp_path, doctor(hosts=("a", "a"), pairs=((1, "a", 1e-6, 9e9),)))
    assert links_of("", near, 1e10).local == Link(1e-6, 9e9)
    named = links_of("ethernet-1", near, 1e10)
    assert named.local == Link(1e-6, 9e9)
    assert (named.name, named.network) == ("ethernet-1", PRESETS["ethernet-1"])


@pytest.mark.parametrize(
    ("boots", "shared"),
    [(("", ""), ()), (("x", "y"), ()), (("x", "x"), ("a", "b"))],
)
def test_hosts_with_one_kernel_are_one_machine(tmp_path, boots, shared):
    found = links_of("", write(tmp_path, doctor(boots=boots)), 1e10)
    assert found.shared == shared


def test_an_allreduce_takes_what_its_model_says():
    network, local = Link(2e-6, 1e10), Link(0.2e-6, 1e10)
    links = Links("test", local, network, memory=2e10)
    calls = links.allreduce(0, 64, 64) - 6 * 2e-6
    n, p = 8e6, 64
    part = (p - 1) / p
    long = 2 * log2(p) * 2e-6 + 2 * n * part / 1e10 + n * part / 2e10
    assert links.allreduce(n, p, p) == pytest.approx(calls + long)
    # On full nodes all arrays of a host pass through its memory.
    crowded = links.allreduce(n, p, 4) - links.allreduce(n, p, p)
    assert crowded == pytest.approx(16 * n / 2e10)
    assert links.allreduce(n, 1, 1) == 0.0
    assert links.allreduce(8, p, p) == pytest.approx(calls + 6 * (2e-6 + 8 / 1e10))
