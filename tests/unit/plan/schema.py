"""What ``plan --json`` prints: names, and the types of what stands there."""

import re

NOTHING, NUMBER = type(None), (int, float)
PLAN = {
    **dict.fromkeys(("ranks", "hosts", "rank_bytes", "host_bytes"), int),
    **dict.fromkeys(("option", "layout", "bound"), str),
    **dict.fromkeys(("seconds", "low", "high", "waiting", "messages"), NUMBER),
    "efficiency": (*NUMBER, NOTHING),
    "simulated": bool,
    "rank_hours": NUMBER,
    "time": re.compile(r"(\d+-)?\d\d:\d\d:00"),
}
MEASURED = {
    "command": str,
    "data": {"name": str, "digest": str, "n_train": int, "n_validation": int},
    "settings": dict,
    **dict.fromkeys(("cores", "base_bytes"), int),
    **dict.fromkeys(("crowding", "memory", "disk", "spread"), NUMBER),
    "numbers": {str: NUMBER},  # under any name
    "curves": {str: {"at": [NUMBER], "seconds": [NUMBER]}},
}
SCHEMA = {
    "kind": re.compile("mpilayer-plan"),
    "format_version": int,
    "command": re.compile("pretrain|finetune|sparse"),
    "links": str,
    "plans": [PLAN],
    "refused": {str: str},
    "best": dict.fromkeys(("time", "rank_hours"), (int, NOTHING)),
    "notes": [str],
    "measured": MEASURED,
}


def check(value, schema, where="$"):
    """Assert that a value is as a schema says."""
    if isinstance(schema, re.Pattern):
        assert schema.fullmatch(value), where
    elif isinstance(schema, dict):
        names = value if str in schema else schema
        assert set(names) <= set(value), where
        for name in names:
            check(value[name], schema.get(str) or schema[name], f"{where}.{name}")
    elif isinstance(schema, list):
        assert type(value) is list, where
        for place, own in enumerate(value):
            check(own, schema[0], f"{where}[{place}]")
    else:
        kinds = schema if isinstance(schema, tuple) else (schema,)
        assert type(value) in kinds, where
