"""predictor.json is read as it was written, strictly."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.search.predictor_record import (
    FineTunedModel,
    PredictedModel,
    PredictorRank,
    PredictorRecord,
    PredictorSelection,
    RidgeWeights,
)
from hil.errors import UsageError
from nas.training.train import Schedule

FITTED = PredictorRecord(
    key="k",
    metric="mIoU",
    order=2,
    schedule=Schedule(steps=4),
    rank={
        "nsr_sum": PredictorRank(0.5, (0.1, 0.9), 0.6, (0.2, 0.9)),
        "order_1": PredictorRank(0.5, (0.1, 0.9), 0.6, (0.2, 0.9), (-0.1, 0.1), 0.4),
    },
    rms_error_of_the_mean=0.7,
    predictors=(RidgeWeights(1, 0.1, 20.0, -3.0, {"b1 nsr": -0.5}),),
    models=(FineTunedModel("b1_k3e2_w4", 20.0, 1.5, 0.3, 20.1, 20.2),),
)
SELECTED = PredictorSelection("fast", "b1_k3e2_w4", 20.1, 0.3, 100.0, 3.5, PredictedModel("b1_k3e2_w4", 20.1, 0.3))


def test_with_and_without_a_search(tmp_path):
    path = tmp_path / PredictorRecord.FILE
    for record in (FITTED, replace(FITTED, selected=(SELECTED,))):
        record.write(path)
        assert PredictorRecord.read(path) == record
    raw = FITTED.to_json()
    assert "selected" not in raw and raw["rank"]["nsr_sum"].keys() == {
        *("tau_b", "tau_b_ci95", "spearman", "spearman_ci95")
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"found": []}, "unknown key 'found'"),
        ({"metric": None}, "'metric'"),
        ({"models": [{"subnet": "b1_k3e2_w4"}]}, "'models.0.score'"),
    ],
)
def test_another_field_is_refused(tmp_path, change, words):
    path = tmp_path / PredictorRecord.FILE
    path.write_text(json.dumps({**FITTED.to_json(), **change}))
    with pytest.raises(UsageError, match=words) as refused:
        PredictorRecord.read(path)
    assert str(path) in str(refused.value) and "hilnas predict" in str(refused.value)
