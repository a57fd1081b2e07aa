"""The run's typed configuration: YAML in, a validated tree out, every key documented once.

Protocol: a job calls :func:`load_config` with a YAML file (any URI) and ``key.path=value``
overrides. Everything is checked there, before any long work starts; the rest of the code
trusts what it gets. An unknown key is an error that names the nearest known one.

Two kinds of keys exist. ``name`` calls the run something, ``output`` and ``reference.folder`` say
where things lie, ``resources`` how many processes do the work: none of these changes a result,
with one exception: a GPU rounds otherwise than a CPU. So the kind of device stands in the
artifacts, beside everything else, which determines the result bit for bit.
"""

from __future__ import annotations

from diet_ray.config.command_line import Command, parse_command_line
from diet_ray.config.evaluation import (
    ArmConfig,
    BenchmarkConfig,
    CotrainConfig,
    EvaluationConfig,
    FidelityConfig,
    ProtocolConfig,
    Score,
    TuningConfig,
)
from diet_ray.config.file import Given, describe_keys, load_config, make_config
from diet_ray.config.fitting import describe_fit, fit
from diet_ray.config.logs import Interval, IntervalsConfig, LogsConfig, SyntheticConfig, TableConfig
from diet_ray.config.models import MMoEConfig, ModelsConfig, NetworkConfig, ReferenceConfig
from diet_ray.config.recipe import (
    AlignmentMode,
    DistillConfig,
    InnerConfig,
    MemoryConfig,
    OuterConfig,
    Precision,
    ScoringConfig,
)
from diet_ray.config.run import ResourcesConfig, RunConfig
from diet_ray.config.search import BudgetConfig, SearchConfig
from diet_ray.config.section import (
    ConfigError,
    Fraction,
    NetworkSize,
    PositiveFloat,
    PositiveInt,
    Section,
    describe_errors,
)
from diet_ray.config.space import OptionConfig, Space

__all__ = [
    "AlignmentMode",
    "ArmConfig",
    "BenchmarkConfig",
    "BudgetConfig",
    "Command",
    "ConfigError",
    "CotrainConfig",
    "DistillConfig",
    "EvaluationConfig",
    "FidelityConfig",
    "Fraction",
    "Given",
    "InnerConfig",
    "Interval",
    "IntervalsConfig",
    "LogsConfig",
    "MMoEConfig",
    "MemoryConfig",
    "ModelsConfig",
    "NetworkConfig",
    "NetworkSize",
    "OptionConfig",
    "OuterConfig",
    "PositiveFloat",
    "PositiveInt",
    "Precision",
    "ProtocolConfig",
    "ReferenceConfig",
    "ResourcesConfig",
    "RunConfig",
    "Score",
    "ScoringConfig",
    "SearchConfig",
    "Section",
    "Space",
    "SyntheticConfig",
    "TableConfig",
    "TuningConfig",
    "describe_errors",
    "describe_fit",
    "describe_keys",
    "fit",
    "load_config",
    "make_config",
    "parse_command_line",
]
