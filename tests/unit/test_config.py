"""The configuration: ranges, names, files."""

import pickle
from dataclasses import fields
from math import nan
from typing import get_type_hints

import pytest

from mpilayer.config import (
    PRESETS,
    ExperimentConfig,
    FieldError,
    FinetuneConfig,
    PretrainConfig,
    ReportConfig,
    SparseConfig,
    as_values,
    flag,
    from_values,
    options_of,
    per_layer,
    read_toml,
    to_toml,
)
from mpilayer.errors import ConfigError


@pytest.mark.parametrize(
    ("cls", "values", "words"),
    [
        (PretrainConfig, {"layers": ()}, r"layers must be a list of numbers; got \(\)"),
        (PretrainConfig, {"layers": 5}, "layers must be a list of numbers; got 5"),
        (PretrainConfig, {"layers": (5, 0)}, "layers must be at least 1; got 0"),
        (PretrainConfig, {"layers": (5, 2.0)}, "layers must be of type int; got 2.0"),
        (PretrainConfig, {"seed": 2**63}, "seed must be at most 9223372036854775807"),
        (PretrainConfig, {"minibatch": 0}, "minibatch must be at least 1; got 0"),
        (PretrainConfig, {"minibatch": True}, "minibatch must be of type int"),
        (PretrainConfig, {"minibatch": "9"}, "minibatch must be of type int; got '9'"),
        (PretrainConfig, {"cut_short": 1}, "cut_short must be of type bool; got 1"),
        (PretrainConfig, {"learning_rate": (0.0,)}, "learning_rate must be greater"),
        (PretrainConfig, {"learning_rate": (nan,)}, "must be greater than 0; got nan"),
        (PretrainConfig, {"momentum": (0.5, 1.0)}, "momentum must be less than 1"),
        (PretrainConfig, {"momentum": (-0.1, 0.5)}, "momentum must be at least 0"),
        (PretrainConfig, {"momentum": (0.5,)}, "momentum needs two numbers.*got 1"),
        (PretrainConfig, {"extra_epochs": (-2,)}, "at least -1.*Change extra_epochs"),
        (PretrainConfig, {"method": "rmb"}, "choose from rbm, autoencoder.*mean 'rbm'"),
        (PretrainConfig, {"schedule": "lockstop"}, "Did you mean 'lockstep'"),
        (PretrainConfig, {"schedule": "lockstep:a"}, "unknown schedule 'lockstep:a'"),
        (PretrainConfig, {"schedule": "replay"}, "unknown schedule .*replay:FILE"),
        (PretrainConfig, {"schedule": "replay:"}, "unknown schedule 'replay:'"),
        (PretrainConfig, {"epochs": (1, 2)}, "epochs needs one .* 4 layers; got 2"),
        (PretrainConfig, {"learning_rate": (0.1,) * 5}, "learning_rate needs .*got 5"),
        (PretrainConfig, {"costs": (1.0, 2.0, 0.0, 1.0)}, "costs needs a positive"),
        (PretrainConfig, {"costs": (1.0, 2.0)}, "costs needs one number.*got 2"),
        (PretrainConfig, {"lag": (1, 1)}, "lag needs .* 3 layers above .*got 2"),
        (PretrainConfig, {"layers": (5,), "lag": (1, 1)}, "one number; got 2. Give 1."),
        (PretrainConfig, {"layers": (5,), "epochs": (1, 2)}, "there is one layer"),
        (
            PretrainConfig,
            {"schedule": "greedy", "lag": (2,)},
            "lag belongs to the schedule lockstep; the schedule is greedy. Leave lag",
        ),
        (PretrainConfig, {"schedule": "async", "refresh_every": 2}, "to .* lockstep"),
        (PretrainConfig, {"schedule": "replay:f", "cores": 2}, "schedule is replay"),
        (PretrainConfig, {"costs": (1.0,)}, "costs belongs to the schedule simulate"),
        (PretrainConfig, {"layers": ("9,5",)}, r"the text '9,5'. Write \[9, 5\]"),
        (PretrainConfig, {"epochs": ("20",)}, r"the text '20'. Write \[20\]"),
        (PretrainConfig, {"momentum": ("0,1e-1",)}, r"Write \[0\.0, 0\.1\]"),
        (PretrainConfig, {"layers": ("many",)}, "layers must be of type int"),
        (ExperimentConfig, {"steps": ("data,pretrain",)}, r"\['data', 'pretrain'\]"),
        (FinetuneConfig, {"learning_rate_decay": 2.0}, "at most 1; got 2"),
        (FinetuneConfig, {"learning_rate_schedule": "cosin"}, "mean 'cosine'"),
        (FinetuneConfig, {"learning_rate_schedule": "exponential"}, "below 1; got 1"),
        (
            FinetuneConfig,
            {"learning_rate_schedule": "cosine", "learning_rate_decay": 0.9},
            "decay must be 1 where .* is cosine; got 0.9. Leave one of the two out",
        ),
        (FinetuneConfig, {"warm_up": 20}, "less than the epochs, 20; got 20"),
        *(
            (FinetuneConfig, {"augment": text}, "shift:N or shift:N:HxW .* got '")
            for text in ("shift", "shift:0", "shift:1:28", "shift:1:0x9", "crop:1", "")
        ),
        (FinetuneConfig, {"task": "regress", "loss": "cross-entropy"}, "squared error"),
        (FinetuneConfig, {"optimizer": "adma"}, "sgd, momentum, adam.*mean 'adam'"),
        (FinetuneConfig, {"learning_rate": 1}, "learning_rate must be of type float"),
        (SparseConfig, {"sparsity_target": 1.0}, "sparsity_target must be less than 1"),
        (SparseConfig, {"memory": 1.0}, "memory must be less than 1; got 1.0"),
        (SparseConfig, {"kl": "exakt"}, "average, exact, exact-fused.*mean 'exact'"),
        (SparseConfig, {"preset": "papper"}, "paper, ufldl.*mean 'paper'"),
        (
            SparseConfig,
            {"optimizer": "sgd", "measure_every": 19},
            "measure_every must be 0, or at least the rows of a minibatch, 20; got 19",
        ),
    ],
)
def test_what_is_refused(cls, values, words):
    with pytest.raises(FieldError, match=words) as caught:
        cls(**values)
    # The words fit a file as well, and the field can be found.
    assert "--" not in str(caught.value)
    assert caught.value.key in values
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.key) == (str(caught.value), caught.value.key)


def test_a_decay_alone_is_the_exponential_schedule():
    """As in files of former versions, which have no schedule."""
    for decay, name in ((0.9, "exponential"), (1.0, "constant")):
        config = from_values(FinetuneConfig, {"learning_rate_decay": decay})
        assert config.learning_rate_schedule == name
        assert from_values(FinetuneConfig, as_values(config)) == config


def test_per_layer():
    assert per_layer("x", (3,), 4) == (3, 3, 3, 3)
    assert per_layer("x", (1, 2), 2) == (1, 2)
    with pytest.raises(ConfigError, match=r"x needs one number.*Give 1 or 3 numbers"):
        per_layer("x", (1, 2), 3)
    assert PretrainConfig(epochs=(1, 2, 3, 4)).stipulated_epochs == (1, 2, 3, 4)
    assert PretrainConfig(epochs=(7,)).stipulated_epochs == (7,) * 4


@pytest.mark.parametrize(
    ("schedule", "given", "expected"),
    [
        ("lockstep", (-1,), (0, 0, 0, 0)),
        ("greedy", (-1,), (0, 0, 0, 0)),
        ("async", (-1,), (0, 1, 1, 1)),
        ("simulate", (-1,), (0, 1, 1, 1)),
        ("simulate", (0, 5, -1, 40), (0, 5, 1, 40)),
        ("async", (0,), (0, 0, 0, 0)),
        ("lockstep", (0, 3, -1, 10), (0, 3, 0, 10)),
    ],
)
def test_extra_epochs(schedule, given, expected):
    config = PretrainConfig(schedule=schedule, extra_epochs=given)
    assert config.extra == expected


def test_names():
    assert flag("extra_epochs") == "--extra-epochs"
    with pytest.raises(ConfigError, match=r"'epoch'\. Did you mean 'epochs'\?$"):
        from_values(PretrainConfig, {"epoch": 3})
    with pytest.raises(ConfigError) as caught:
        from_values(FinetuneConfig, {"no": 3})
    assert all(item.name in str(caught.value) for item in fields(FinetuneConfig))


@pytest.mark.parametrize(
    ("cls", "key", "homes"),
    [
        (FinetuneConfig, "layers", r"\[pretrain\]"),
        (PretrainConfig, "patience", r"\[finetune\]"),
        (SparseConfig, "epochs", r"\[pretrain\] or \[finetune\]"),
        (ReportConfig, "path", r"\[data\]"),
    ],
)
def test_a_key_of_another_section(cls, key, homes):
    words = f"^unknown key '{key}'; it belongs in {homes}. Move it there.$"
    with pytest.raises(FieldError, match=words) as caught:
        from_values(cls, {key: 3})
    assert caught.value.key == key


def test_scalars_serve_as_lists_and_whole_numbers_as_floats():
    found = from_values(PretrainConfig, {"epochs": 3, "learning_rate": 1, "layers": 9})
    assert (found.epochs, found.learning_rate, found.layers) == ((3,), (1.0,), (9,))
    assert type(found.learning_rate[0]) is float
    one = from_values(FinetuneConfig, {"learning_rate": 1}).learning_rate
    assert type(one) is float
    with pytest.raises(ConfigError, match=r"epochs must be of type int; got 3\.5"):
        from_values(PretrainConfig, {"epochs": 3.5})


OTHERS = [
    PretrainConfig(),
    PretrainConfig(lag=(0, 1, 2)),
    PretrainConfig(layers=(7,), lag=(3,)),
    PretrainConfig(schedule="async", extra_epochs=(0, 5, 20, 40)),
    PretrainConfig(
        layers=(30, 20),
        schedule="replay:a b.json",
        epochs=(3, 4),
        extra_epochs=(-1, 2),
        cut_short=False,
        learning_rate=(0.25, 1e-3),
        visible="linear",
        seed=2**40,
    ),
    FinetuneConfig(optimizer="adam", learning_rate=0.002, patience=3),
    SparseConfig(),
    SparseConfig(preset="ufldl", kl="exact-fused", decrease=1e-6),
]


@pytest.mark.parametrize("config", OTHERS)
def test_toml_round_trip(tmp_path, config):
    path = tmp_path / "config.toml"
    path.write_text(to_toml({"data": {"a": 1}, "pretrain": as_values(config)}))
    values = read_toml(path, "pretrain")
    assert from_values(type(config), values) == config
    assert set(values) == set(get_type_hints(type(config)))
    assert read_toml(path, "data") == {"a": 1}
    assert read_toml(path, "finetune") == {}


def test_presets():
    usual = as_values(SparseConfig())
    for name in PRESETS:
        found = as_values(from_values(SparseConfig, {"preset": name}))
        changes = {k: v for k, v in found.items() if v != usual[k]}
        assert {**changes, "preset": name} == {**PRESETS[name], "preset": name}
    values = {"hidden": 30, "preset": "ufldl", "weight_decay": 0}
    found = from_values(SparseConfig, values)
    assert (found.hidden, found.weight_decay) == (30, 0.0)
    assert (found.activation, found.sparsity_target) == ("sigmoid", 0.01)
    assert from_values(SparseConfig, as_values(found)) == found
    for preset in ("ufdl", 3, ""):
        with pytest.raises(ConfigError, match="preset"):
            from_values(SparseConfig, {"preset": preset})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "must be a readable file; No such file"),
        (b"a = = 1", "must be TOML; .*Mend the file"),
        (b"\xff\xfe", "must be TOML"),
        (b"a = " + b"[" * 99999, "must be TOML; .*recursion"),
        (b"[pretrain]\nseed = " + b"9" * 5000, "must be TOML; .*digits"),
        (b"pretrain = 3", r"must be a table; found 3.*\[pretrain\]"),
        (b"[pretain]", r"unknown section 'pretain'\. Did you mean 'pretrain'\?$"),
        (b"layers = [5, 2]", r"'layers' must stand in .*Write it below \[pretrain\]"),
        (b"steps = 3\n[pretrain]", r"Write it below \[experiment\]\.$"),
        (b"minibatch = 5", r"below \[pretrain\] or \[finetune\] or \[sparse\]\.$"),
        (b"layer = 5", "unknown section 'layer'"),
        (b"[other]", "unknown section 'other'; choose from pretrain, finetune"),
    ],
)
def test_bad_files(tmp_path, content, words):
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_toml(path, "pretrain")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("layers", "1000,500", (1000, 500)),
        ("layers", "7", (7,)),
        ("momentum", "0.5,0.9", (0.5, 0.9)),
        ("weight_decay", "1e-4", 1e-4),
        ("minibatch", "12", 12),
        ("method", "rbm", "rbm"),
        ("tied", "false", False),
        ("tied", "true", True),
        *(("layers", "7,", None), ("minibatch", "1.5", None), ("tied", "yes", None)),
    ],
)
def test_values_from_the_command_line(name, text, expected):
    read = options_of(PretrainConfig)[name].from_text
    if expected is None:
        with pytest.raises(ValueError, match=r"invalid literal|not in"):
            read(text)
    else:
        assert (read(text), type(read(text))) == (expected, type(expected))


def test_defaults_that_depend_on_the_optimizer():
    usual = {"lbfgs": "positive", "cg": "positive", "sgd": "symmetric"}
    for name, initial in usual.items():
        found = SparseConfig(optimizer=name, activation="sigmoid").resolved()
        assert (found.output, found.initial) == ("sigmoid", initial)
        assert found.resolved() == found
    given = SparseConfig(optimizer="sgd", initial="positive", output="linear")
    assert given.resolved() == given
