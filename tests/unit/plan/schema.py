"""The JSON schema of ``plan --json``, and a check of what it uses."""

import re

NUMBER, TEXT, COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer"}


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def table(values):
    return {"type": "object", "additionalProperties": values}


def listing(values):
    return {"type": "array", "items": values}


PLAN = record(
    ranks=COUNT,
    hosts=COUNT,
    option=TEXT,
    layout=TEXT,
    seconds=NUMBER,
    low=NUMBER,
    high=NUMBER,
    waiting=NUMBER,
    efficiency={"type": ["number", "null"]},
    rank_bytes=COUNT,
    host_bytes=COUNT,
    bound=TEXT,
    messages=NUMBER,
    simulated={"type": "boolean"},
    rank_hours=NUMBER,
    time={"type": "string", "pattern": r"^(\d+-)?\d\d:\d\d:00$"},
)
MEASURED = record(
    command=TEXT,
    data=record(name=TEXT, digest=TEXT, n_train=COUNT, n_validation=COUNT),
    settings={"type": "object"},
    cores=COUNT,
    crowding=NUMBER,
    memory=NUMBER,
    disk=NUMBER,
    spread=NUMBER,
    base_bytes=COUNT,
    numbers=table(NUMBER),
    curves=table(record(at=listing(NUMBER), seconds=listing(NUMBER))),
)
BEST = {"type": ["integer", "null"]}
SCHEMA = record(
    kind={"type": "string", "enum": ["mpilayer-plan"]},
    format_version={"type": "integer", "enum": [1]},
    command={"type": "string", "enum": ["pretrain", "finetune", "sparse"]},
    links=TEXT,
    plans=listing(PLAN),
    refused=table(TEXT),
    best=record(time=BEST, rank_hours=BEST),
    notes=listing(TEXT),
    measured=MEASURED,
)

_TYPES = {
    "number": (int, float),
    "integer": (int,),
    "string": (str,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def check(value, schema, where="$"):
    """Assert that a value is as a schema says, of the words of it used above."""
    names = schema["type"]
    names = names if isinstance(names, list) else [names]
    assert type(value) in {own for name in names for own in _TYPES[name]}, where
    assert value in schema.get("enum", [value]), where
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if isinstance(value, dict):
        known = schema.get("properties", {})
        missing = set(schema.get("required", ())) - set(value)
        assert not missing, f"{where}: {missing}"
        others = schema.get("additionalProperties")
        for key, own in value.items():
            if key in known or others:
                check(own, known.get(key, others), f"{where}.{key}")
    if isinstance(value, list):
        for place, own in enumerate(value):
            check(own, schema["items"], f"{where}[{place}]")
