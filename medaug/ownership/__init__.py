"""One writer a run."""
