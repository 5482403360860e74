"""Predictions to rows, gates and flags; tables; the report. Knows no MLflow."""
