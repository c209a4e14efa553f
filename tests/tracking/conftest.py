"""Records to compare what W&B gives back with: the same as the report's tests have."""

from report.conftest import measure, one_seed, recipe, results, study

__all__ = ["measure", "one_seed", "recipe", "results", "study"]
