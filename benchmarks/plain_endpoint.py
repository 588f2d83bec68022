"""What one would write without a model server: a FastAPI endpoint that calls the SavedModel.

    python -m benchmarks.plain_endpoint FOLDER PORT

Belongs here: that endpoint, as its tutorials have it, and no worse. Does not belong here: the measuring.
"""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf
import uvicorn
from fastapi import FastAPI


def app_for(folder: str) -> FastAPI:
    """POST /predict {"inputs": {name: [value, ...]}} to {"probability": [...]}."""
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    dtypes = {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()}
    app = FastAPI()

    # Not async: FastAPI calls it on a thread, so one request does not hold up the others.
    @app.post("/predict")
    def predict(body: dict[str, dict[str, list[Any]]]) -> dict[str, list[float]]:
        tensors = {
            name: tf.constant(
                [float("nan") if value is None else value for value in body["inputs"][name]], dtype
            )
            for name, dtype in dtypes.items()
        }
        return {"probability": signature(**tensors)["probability"].numpy().tolist()}

    app.state.loaded = loaded
    return app


if __name__ == "__main__":
    uvicorn.run(app_for(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
