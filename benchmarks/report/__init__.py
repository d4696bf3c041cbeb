"""What a run of `benchmarks.all` has found, as JSON, tables, plots and a page."""
