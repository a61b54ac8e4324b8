"""The configuration: frozen dataclasses whose fields are flags, TOML keys and help.

Each field says its default, its help and its legal range once. The *effective*
configuration, defaults included, is written into every run directory.
"""

from mpilayer.config.experiment import (
    SCALINGS,
    STEPS,
    DataConfig,
    ExperimentConfig,
    ReportConfig,
)
from mpilayer.config.fields import (
    FieldError,
    check,
    flag,
    option,
    per_layer,
    value_from_text,
)
from mpilayer.config.training import (
    PRESETS,
    SCHEDULES,
    TASKS,
    FinetuneConfig,
    PretrainConfig,
    SparseConfig,
)
from mpilayer.config.values import (
    SECTIONS,
    Config,
    as_values,
    compared,
    from_values,
    read_sections,
    read_toml,
    to_toml,
    unknown_key,
)

__all__ = [
    "PRESETS",
    "SCALINGS",
    "SCHEDULES",
    "SECTIONS",
    "STEPS",
    "TASKS",
    "Config",
    "DataConfig",
    "ExperimentConfig",
    "FieldError",
    "FinetuneConfig",
    "PretrainConfig",
    "ReportConfig",
    "SparseConfig",
    "as_values",
    "check",
    "compared",
    "flag",
    "from_values",
    "option",
    "per_layer",
    "read_sections",
    "read_toml",
    "to_toml",
    "unknown_key",
    "value_from_text",
]
