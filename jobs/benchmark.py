"""Benchmark a distilled set: every method, candidate and seed; the paper's tables and figures.

    python jobs/benchmark.py --config configs/quickstart.yaml --set benchmark.studies='[main]'
    python jobs/benchmark.py --config configs/kuairand_pure.yaml --set logs.path=/data/kuairand-pure
    ray job submit --working-dir . -- python jobs/benchmark.py --config configs/quickstart.yaml

Distils first what is not distilled yet. A cell that was trained is not trained again; a benchmark
that was killed goes on where it was. Writes results.parquet, tuning.parquet, costs.parquet and
report/benchmark.md, with PNG and SVG pictures, below the output's folder benchmark.
"""

from diet_ray import runtime
from diet_ray.config import parse_command_line
from diet_ray.pipeline import benchmark_logs, check_benchmark

FIRST_KEYS = [
    "output",
    "logs.path",
    "benchmark.studies",
    "benchmark.methods",
    "benchmark.labels",
    "benchmark.seeds",
    "benchmark.study_seeds",
    "benchmark.tuning.tried",
    "benchmark.user_field",
    "benchmark.ratios",
    "benchmark.fidelity.settings",
    "benchmark.fidelity.full_seeds",
    "evaluation.candidates",
    "resources.evaluation_tasks",
]

if __name__ == "__main__":
    command = parse_command_line(__doc__, FIRST_KEYS)
    runtime.run_job(benchmark_logs, command, check=check_benchmark)
