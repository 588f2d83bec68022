"""What a user would pick instead: a linear model, and LightGBM tuned by Optuna, on the same facts.

Belongs here: these models. Does not belong here: our own, or the comparison (`benchmarks.model`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from airloop.row_losses import row_losses
from airloop.training.examples import Columns, Examples
from airloop.training.statistics import elapsed_hours
from airloop.use_cases.spec import UseCase

MOST_TREES = 3000
STOP_AFTER_TREES = 60


class Fitted(NamedTuple):
    """Answers of a model for the test rows, and what they cost."""

    answers: np.ndarray
    """[rows]: probabilities, or numbers."""
    train_seconds: float
    """Of the model itself, without what was tried before."""
    trials: int = 0
    tuning_seconds: float = 0.0
    parameters: Mapping[str, Any] = MappingProxyType({})


def linear(spec: UseCase, train: Examples, test: Examples) -> Fitted:
    """Logistic regression, of numbers ridge regression, on everything.

    Categories, hours and weekdays one-hot; numbers standardised, missing ones marked.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories, numbers = frames(spec, train.columns)
    low, high = np.nanquantile(numbers, [0.001, 0.999], axis=0)
    width = categories.shape[1]

    def together(columns: Columns) -> Any:
        words, values = frames(spec, columns)
        return np.concatenate([words.astype(object), np.clip(values, low, high).astype(object)], axis=1)

    began = time.monotonic()
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", min_frequency=20), list(range(width))),
            (
                make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
                list(range(width, width + numbers.shape[1])),
            ),
        ),
        LogisticRegression(max_iter=300) if spec.label.target.has_classes else Ridge(),
    ).fit(together(train.columns), train.labels)
    seconds = time.monotonic() - began
    return Fitted(_answers(model, together(test.columns)), seconds)


def light_gbm(
    spec: UseCase, train: Examples, validation: Examples, test: Examples, *, minutes: float, seed: int
) -> Fitted:
    """LightGBM with the parameters that had the least validation loss of all tried in `minutes`.

    Like ours: the first trial is what one would begin with, validation rows stop the fitting early and
    choose, and the best trial's own model is the one that is tested.
    """
    import lightgbm
    import optuna

    target = spec.label.target
    words, _ = frames(spec, train.columns)
    codes: list[dict[str, int]] = [
        {str(word): code for code, word in enumerate(np.unique(column))} for column in words.T
    ]

    def together(columns: Columns) -> np.ndarray:
        words, values = frames(spec, columns)
        coded = [
            [known.get(str(word), -1) for word in column]
            for known, column in zip(codes, words.T, strict=True)
        ]
        return np.concatenate([np.array(coded, np.float64).T, values], axis=1)

    rows = {"train": together(train.columns), "validation": together(validation.columns)}
    categories = list(range(words.shape[1]))
    best: dict[str, Any] = {"loss": np.inf}

    def tried(trial: optuna.Trial) -> float:
        kind = lightgbm.LGBMClassifier if target.has_classes else lightgbm.LGBMRegressor
        model = kind(
            n_estimators=MOST_TREES,
            learning_rate=trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            num_leaves=trial.suggest_int("num_leaves", 7, 255, log=True),
            min_child_samples=trial.suggest_int("min_child_samples", 10, 1000, log=True),
            colsample_bytree=trial.suggest_float("colsample_bytree", 0.2, 1.0),
            subsample=trial.suggest_float("subsample", 0.4, 1.0),
            subsample_freq=1,
            reg_alpha=trial.suggest_float("reg_alpha", 1e-3, 30.0, log=True),
            reg_lambda=trial.suggest_float("reg_lambda", 1e-3, 30.0, log=True),
            cat_smooth=trial.suggest_float("cat_smooth", 1.0, 300.0, log=True),
            n_jobs=2,
            random_state=seed,
            verbose=-1,
        )
        began = time.monotonic()
        model.fit(
            rows["train"],
            train.labels,
            eval_X=rows["validation"],
            eval_y=validation.labels,
            categorical_feature=categories,
            callbacks=[lightgbm.early_stopping(STOP_AFTER_TREES, verbose=False)],
        )
        seconds = time.monotonic() - began
        found = _answers(model, rows["validation"])
        loss = float(row_losses(target, validation.labels, found).mean())
        if loss < best["loss"]:
            best.update(loss=loss, model=model, seconds=seconds, parameters=dict(trial.params))
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(
        {
            "learning_rate": 0.05,
            "num_leaves": 63,
            "min_child_samples": 100,
            "colsample_bytree": 0.6,
            "subsample": 0.8,
            "reg_alpha": 1e-3,
            "reg_lambda": 1e-3,
            "cat_smooth": 50.0,
        }
    )
    began = time.monotonic()
    study.optimize(tried, timeout=minutes * 60)
    took = time.monotonic() - began
    answers = _answers(best["model"], together(test.columns))
    return Fitted(answers, best["seconds"], len(study.trials), took, best["parameters"])


def _answers(model: Any, rows: np.ndarray) -> np.ndarray:
    """Probabilities of 1, or numbers, [rows]."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(rows))[:, 1]
    return np.asarray(model.predict(rows))


def frames(spec: UseCase, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Categories as text [rows, ...] and numbers as float64 [rows, ...], the same facts as our model's."""
    words = [columns[item.name].astype(str) for item in spec.inputs if item.type == "string"]
    numbers = [columns[item.name].astype(np.float64) for item in spec.inputs if item.type == "double"]
    for item in spec.inputs:
        if item.type == "local_time":
            seconds = columns[item.name]
            words += [(seconds // 3600 % 24).astype(str), ((seconds // 86400 + 3) % 7).astype(str)]
            numbers.append(seconds % 86400 / 60.0)
    numbers += [elapsed_hours(columns[span.since], columns[span.until]) for span in spec.elapsed]
    return np.stack(words, axis=1), np.stack(numbers, axis=1)
