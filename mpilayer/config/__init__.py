"""The configuration: frozen dataclasses whose fields are flags, TOML keys and help.

Each field says its default, its help and its legal range once. The *effective*
configuration, defaults included, is written into every run directory.
"""

from mpilayer.config.fields import NOUNS as NOUNS
from mpilayer.config.fields import FieldError as FieldError
from mpilayer.config.fields import Option as Option
from mpilayer.config.fields import Settings as Settings
from mpilayer.config.fields import flag as flag
from mpilayer.config.fields import of_others as of_others
from mpilayer.config.fields import option as option
from mpilayer.config.fields import options_of as options_of
from mpilayer.config.fields import per_layer as per_layer
from mpilayer.config.sections import SECTIONS as SECTIONS
from mpilayer.config.sections import STEPS as STEPS
from mpilayer.config.sections import SWEEP as SWEEP
from mpilayer.config.sections import Config as Config
from mpilayer.config.sections import DataConfig as DataConfig
from mpilayer.config.sections import ExperimentConfig as ExperimentConfig
from mpilayer.config.sections import ReportConfig as ReportConfig
from mpilayer.config.sections import as_values as as_values
from mpilayer.config.sections import from_values as from_values
from mpilayer.config.sections import option_at as option_at
from mpilayer.config.sections import read_experiment as read_experiment
from mpilayer.config.sections import read_sections as read_sections
from mpilayer.config.sections import read_toml as read_toml
from mpilayer.config.sections import settings_of_all as settings_of_all
from mpilayer.config.sections import to_toml as to_toml
from mpilayer.config.sparse import PRESETS as PRESETS
from mpilayer.config.sparse import SparseConfig as SparseConfig
from mpilayer.config.training import TASKS as TASKS
from mpilayer.config.training import FinetuneConfig as FinetuneConfig
from mpilayer.config.training import PretrainConfig as PretrainConfig
