"""Forecasts from made-up measurements: speed, form, refusals, the best."""

import json
import math
from dataclasses import replace
from time import process_time

import pytest

from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, as_values
from mpilayer.errors import ConfigError
from mpilayer.plan.cost import Sparse
from mpilayer.plan.layers import Pretraining, layer_key
from mpilayer.plan.links import links_of
from mpilayer.plan.measured import Curve, Measured, identity, read_measured
from mpilayer.plan.model import limit_of, outlook
from mpilayer.plan.pieces import Pieces
from mpilayer.plan.stack import Finetuning
from mpilayer.runs.rows import Facts
from mpilayer.train.layer import layer_shapes, most_slices
from mpilayer.train.plans import table_of
from tests.unit.plan.schema import SCHEMA, check

FACTS = Facts(n_train=50_000, n_visible=784, data_name="made up", data_digest="abc")


def measured(command, config, shapes=(), cores=128):
    numbers = {"evaluate": 5e-5, "row": 4e-7, "block": 5e-5, "evaluation": 3e-4}
    curves = {"epoch": Curve((1,), (1e-3,)), "rows": Curve((10, 100), (2e-3, 8e-3))}
    curves["step"] = Curve((1, 4), (8e-3, 2.2e-3))
    for shape in shapes:
        key, most = layer_key(shape), most_slices(shape.n_hidden)
        sizes = sorted({1, most})
        step = 1e-8 * shape.cost
        curves[f"step {key}"] = Curve(tuple(sizes), tuple(step / n for n in sizes))
        curves[f"epoch {key}"] = Curve((1,), (1e-3,))
        numbers |= {
            f"{name} {key}": 2e-11 * shape.cost for name in ("encode", "monitor")
        }
    speeds = {"crowding": 1.2, "memory": 2e10, "disk": 5e8, "spread": 0.02}
    settings = as_values(config)
    about = (command, identity(FACTS), settings, cores)
    return Measured(*about, **speeds, base_bytes=10**8, numbers=numbers, curves=curves)


def model(command, config, cluster="", **more):
    links = links_of(cluster, None, 2e10)
    if command == "sparse":
        return Sparse(measured(command, config, **more), links, config)
    layers = config if command == "pretrain" else PretrainConfig()
    shapes = layer_shapes(layers, FACTS.n_visible)
    found = measured(command, config, shapes, **more)
    if command == "finetune":
        return Finetuning(found, links, config, shapes)
    return Pretraining(found, links, config, shapes, table_of(config, shapes))


MODELS = {
    "pretrain": PretrainConfig(),
    "finetune": FinetuneConfig(minibatch=100),
    "sparse": SparseConfig(kl="exact"),
}


@pytest.mark.parametrize("command", MODELS)
def test_what_is_printed_is_of_its_schema_and_can_be_read(command, tmp_path):
    config = MODELS[command]
    asked = model(command, config, "infiniband-100")
    found = outlook(asked, (1, 2, 4, 1000), 2)
    text = json.dumps(found.to_json())
    check(json.loads(text), SCHEMA)
    assert [f.ranks for f in found.forecasts][:2] == [1, 2]
    path = tmp_path / "plan.json"
    path.write_text(text)
    again = read_measured(path, command, config, FACTS)
    assert again == asked.measured


@pytest.mark.parametrize("command", MODELS)
def test_more_ranks_are_faster_and_have_less_each(command):
    found = outlook(model(command, MODELS[command]), (1, 2, 4), 1).forecasts
    usual = [f for f in found if not f.option]
    one, two, four = (f.cost.seconds for f in usual)
    # Of pre-training one rank a layer is slower than the lowest layer alone.
    assert one > two > four * (0.99 if command == "pretrain" else 1)
    assert all(0 < f.efficiency <= 1.01 for f in usual)
    assert all(f.low < f.cost.seconds < f.high for f in usual)
    assert all(f.cost.host_bytes >= f.cost.rank_bytes for f in usual)
    if command != "pretrain":  # of which the lowest layer has all rows
        assert usual[0].cost.rank_bytes > usual[-1].cost.rank_bytes


def test_ten_thousand_ranks_on_a_hundred_hosts_within_two_seconds():
    config = PretrainConfig(layers=(6464,) * 100)
    asked = model("pretrain", config, "slingshot-11")
    began = process_time()
    (found,) = outlook(asked, (10_000,), 100).forecasts
    assert process_time() - began < 2
    assert (found.ranks, found.hosts) == (10_000, 100)
    # Twenty epochs of a hundred layers: the pipeline mostly fills and empties.
    assert 0.05 < found.efficiency < 20 / 119


def test_layouts_are_compared_and_what_is_of_no_use_is_refused_with_the_reason():
    found = outlook(model("pretrain", PretrainConfig()), (2, 500), 1)
    assert "500 ranks" in found.refused[500]
    assert [f.ranks for f in found.forecasts] == [2, 2]
    assert [f.cost.layout for f in found.forecasts] == ["1:1 2-4:1", "1-4:2"]
    assert found.fastest.option == "--layout 1-4:2"  # as layers differ in size


def test_hosts_that_are_one_machine_share_its_cores():
    asked = model("sparse", SparseConfig(), "one-host", cores=2)
    apart = outlook(asked, (4,), 2)
    asked.links = replace(asked.links, shared=("n1", "n2"))
    shared = outlook(asked, (4,), 2)
    ratio = shared.forecasts[0].cost.seconds / apart.forecasts[0].cost.seconds
    assert 1.5 < ratio < 2.5
    assert any("n1 and n2 are one machine" in note for note in shared.notes)


@pytest.fixture(scope="module")
def made():
    """Give what ``plan --json`` prints."""
    return outlook(model("pretrain", PretrainConfig()), (1,), 1).to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"facts": replace(FACTS, data_digest="def")}, "digest abc, found def"),
        ({"facts": replace(FACTS, n_train=7)}, "n_train 50000, found 7"),
        ({"config": PretrainConfig(minibatch=7)}, "minibatch 100, now 7"),
        ({"command": "sparse"}, "must be of sparse"),
        ({"text": "{}"}, "must be what 'mpilayer plan --json' prints"),
        ({"text": "nonsense"}, "must be what"),
        ({"path": "missing"}, "No such file"),
        ({"curves": {"": {"at": [1, 4], "seconds": [-1, 2]}}}, "positive"),
        ({"curves": {"": {"at": [4, 4], "seconds": [1, 2]}}}, "ascending"),
        ({"curves": {"": {"at": [1], "seconds": [1, 2]}}}, "as many"),
        ({"numbers": {"encode": math.nan}}, "finite"),
        ({"numbers": {"encode": -1}}, "not negative"),
        ({"spread": math.nan}, "finite"),
        ({"spread": 1e300}, "finite"),
        ({"base_bytes": 10**400}, "finite"),
        ({"disk": 1e-320}, "positive"),
        ({"cores": 0}, "finite"),
        ({"cores": math.inf}, "infinity"),
        ({"data": [1]}, "must be what"),
        ({"settings": 1}, "must be what"),
    ],
    ids=range(20),
)
def test_what_has_changed_or_is_damaged_is_refused(made, change, words, tmp_path):
    path = tmp_path / "plan.json"
    known = {key: change.get(key, own) for key, own in made["measured"].items()}
    known["command"] = "pretrain"
    path.write_text(change.get("text", json.dumps({**made, "measured": known})))
    asked = change.get("command", "pretrain"), change.get("config", PretrainConfig())
    with pytest.raises(ConfigError, match=words):
        read_measured(
            tmp_path / change.get("path", path.name), *asked, change.get("facts", FACTS)
        )


def test_settings_that_only_say_how_long_may_change(made, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(made))
    config = PretrainConfig(epochs=(3,), schedule="greedy", seed=7)
    assert read_measured(path, "pretrain", config, FACTS).command == "pretrain"


def test_one_step_an_epoch_is_measured_so_that_it_can_be_read():
    fixed, step = Pieces(0).line(lambda steps: 0.5 * steps, 1, 1.0)
    assert fixed > 0
    assert step == 0.5


def test_a_layout_that_one_rank_cannot_have_has_no_efficiency():
    asked = model("pretrain", PretrainConfig(layers=(128, 64), layout="1:1 2:1"))
    found = outlook(asked, (1, 2), 1)
    assert list(found.refused) == [1]
    assert [f.efficiency for f in found.forecasts] == [None]
    check(json.loads(json.dumps(found.to_json(), allow_nan=False)), SCHEMA)


@pytest.mark.parametrize(
    ("number", "seconds"), [(0.5, 8), (1, 8), (2, 4), (4, 2), (8, 1)]
)
def test_between_measured_numbers_a_power_law_holds(number, seconds):
    assert Curve((1, 4), (8, 2))(number) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [(1, "00:05:00"), (3600, "01:35:00"), (86_400, "1-12:05:00")],
)
def test_a_limit_of_time_has_a_margin(seconds, limit):
    assert limit_of(seconds) == limit
