"""The code of a registered generator: MLflow copies it into the model and runs it there.

A table with the column ``label`` (class number) and, if wanted, ``n`` (how many rows, default 1)
and ``seed`` (default 0) gives n rows for each of its lines, (sum of n, *shape) float32. Equal lines
give equal rows. Needs medaug, and nothing that was pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from medaug.arms import load_arm


class GeneratorModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        self.arm: Any = load_arm(Path(context.artifacts["generator"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        wanted = model_input.to_dict("records")
        rows = [
            self.arm.draw(int(line.get("n", 1)), int(line["label"]), int(line.get("seed", 0)))
            for line in wanted
        ]
        return np.concatenate(rows)


set_model(GeneratorModel())
