"""Version labels: names for versions, and the rule for moving them.

Belongs here: the decision whether a whole set of labels may take effect. Does not belong here: storing the
labels or looking requests up by them (`manager`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from serving.model_server.config import ModelConfig
from serving.model_server.errors import Code, ServingError

LabelMap = Mapping[str, Mapping[str, int]]


def assign_labels(
    models: Iterable[ModelConfig],
    current: LabelMap,
    is_available: Callable[[str, int], bool],
    *,
    allow_unused_for_unavailable: bool,
) -> LabelMap:
    """The labels that `models` ask for, as {model: {label: version}}.

    A label may name only a version that is available now, so that moving a label never loses a request.
    `allow_unused_for_unavailable` lifts that for labels that do not yet name another version of the model,
    which is how a server restarts with labels in its configuration.

    Raises ServingError (FAILED_PRECONDITION) when any label may not be assigned; then none of them is.
    """
    assigned: dict[str, dict[str, int]] = {}
    for model in models:
        for label, version in model.labels.items():
            used_elsewhere = current.get(model.name, {}).get(label, version) != version
            exempt = allow_unused_for_unavailable and not used_elsewhere
            if not exempt and not is_available(model.name, version):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {model.name}, "
                    "which is not currently available for inference",
                )
            assigned.setdefault(model.name, {})[label] = version
    return assigned
