"""Studies, recipes, runs and records as plain data. No torch."""
