"""Every departure from the paper is said when a run departs, and only then."""

import pytest

from cai.evaluation.departures import departures

FAITHFUL = {
    "revise.few_shots": 5,
    "feedback.method": "choice",
    "feedback.model": "base",
    "model.temperature": 1.0,
    "rl.kl.coefficient": 0.001,
}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"sft.start": "helpful"}, "SL-CAI starts from the helpful assistant"),
        ({"helpful.fine_tune": True}, "not by RLHF"),
        ({"feedback.model": "helpful"}, "The feedback model is the helpful assistant"),
        ({"feedback.method": "probe"}, "read off hidden states"),
        ({"feedback.method": "contrast"}, "compare likelihoods"),
        ({"feedback.label.calibrate": True}, "calibrated by a temperature"),
        ({"revise.few_shots": 0}, "without few-shots"),
        ({"model.temperature": 0.6}, "at temperature 0.6, not 1"),
        ({"rl.kl.coefficient": 0.02}, "is 0.02, not 0.001"),
        ({"rl.reward.missing_eos_penalty": 1.0}, "cut off are paid 1.0 less"),
        ({"rl.reward.repetition_penalty": 2.0}, "repeat themselves are paid 2.0 less"),
        ({"rl.rollout.red_team_share": 0.7}, "a share of 0.7 are red-team ones"),
    ],
)
def test_a_departure_is_said_when_it_is_made(change, said):
    plain, changed = departures(FAITHFUL), departures({**FAITHFUL, **change})
    [added] = set(changed) - set(plain)
    assert said in added


def test_full_finetuning_trains_more_than_adapters():
    assert "but for the preference model" in departures({"pm.full_finetuning": True})[0]
    both = departures({"sft.full_finetuning": True, "rl.full_finetuning": True})[0]
    assert "but for SL-CAI and the policy" in both
