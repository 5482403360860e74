"""MLflow: everything that is sent there."""
