"""The training loop: exact resumption, and checkpoints that are not believed blindly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.errors import CheckpointError, ConfigError
from nas.training import train as train_module
from nas.training.train import DivergedError, Schedule, decayed_apart, finished, load, restore, save, train


def problem(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def loss(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 4, generator=generator)
        return (model(x)[:, 0] - x.sum(1)).square().mean()

    return model, loss


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("killed_at", [1, 7, 19])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, optimizer, killed_at, average):
    monkeypatch.setattr(train_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    schedule = Schedule(20, optimizer=optimizer, learning_rate=0.01, warmup_steps=3, average=average)
    whole, loss = problem()
    losses = [s.loss for s in train(whole, loss, schedule, tmp_path / "whole.pt", "k")]
    assert losses[-1] < losses[0]

    part, loss = problem()
    steps = train(part, loss, schedule, tmp_path / "part.pt", "k")
    for _ in range(killed_at):
        next(steps)
    steps.close()
    again, loss = problem(seed=99)  # other weights: everything has to come from the checkpoint
    list(train(again, loss, schedule, tmp_path / "part.pt", "k"))
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_key_starts_afresh_and_a_finished_one_is_loaded(tmp_path):
    schedule = Schedule(3, learning_rate=0.01)
    model, loss = problem()
    assert len(list(train(model, loss, schedule, tmp_path / "m.pt", "a"))) == 3
    assert len(list(train(model, loss, schedule, tmp_path / "m.pt", "a"))) == 0
    assert len(list(train(model, loss, schedule, tmp_path / "m.pt", "b"))) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02cos\nsystem\n(S'true'\ntR."])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    model, loss = problem()
    list(train(model, loss, Schedule(1), tmp_path / "m.pt", "k"))
    whole = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="delete it to train again"):
        list(train(model, loss, Schedule(1), tmp_path / "m.pt", "k"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    save(tmp_path / "m.pt", {"key": "k", "step": 1, "model": {"a": torch.ones(1)}, "optimizer": {}})
    model, loss = problem()
    with pytest.raises(CheckpointError, match="does not fit"):
        list(train(model, loss, Schedule(2), tmp_path / "m.pt", "k"))


def test_weights_of_other_settings_are_refused(tmp_path):
    model, loss = problem()
    list(train(model, loss, Schedule(2), tmp_path / "m.pt", "this data"))
    restore(problem(seed=1)[0], tmp_path / "m.pt", "this data")
    with pytest.raises(
        CheckpointError, match=r"m\.pt: trained under other settings \(this data, these are other data\)"
    ):
        restore(model, tmp_path / "m.pt", "other data")


def test_a_training_is_finished_under_its_key_and_steps(tmp_path):
    model, loss = problem()
    assert not finished(tmp_path / "m.pt", "k", 2)
    list(train(model, loss, Schedule(2), tmp_path / "m.pt", "k"))
    assert finished(tmp_path / "m.pt", "k", 2)
    assert not finished(tmp_path / "m.pt", "k", 3) and not finished(tmp_path / "m.pt", "another", 2)


def test_parts_of_a_loss_are_their_sum(tmp_path):
    whole, parts = problem(), problem()
    list(train(*whole, Schedule(5), tmp_path / "whole.pt", "k"))

    def halves(step):
        yield parts[1](step) / 2
        yield parts[1](step) / 2  # batch norm's running averages apart, the same gradients

    steps = list(train(parts[0], halves, Schedule(5), tmp_path / "parts.pt", "k"))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5]
    for a, b in zip(whole[0].parameters(), parts[0].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_divergence_leaves_the_weights_alone(tmp_path):
    model, _ = problem()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(DivergedError):
        list(train(model, lambda step: [model[0].weight.sum(), model[2].weight.sum() * float("nan")], Schedule(2),
                   tmp_path / "m.pt", "k"))  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_divergence_is_said(tmp_path):
    model, _ = problem()
    with pytest.raises(DivergedError, match="lower learning_rate"):
        list(train(model, lambda step: model[0].weight.sum() * float("inf"), Schedule(2), tmp_path / "m.pt", "k"))


def test_the_average_is_that_of_the_steps_weights(tmp_path):
    """By the recurrence itself, over a second training that shows its weights after each step."""
    schedule, decay = Schedule(12, learning_rate=0.01), 0.6
    averaged, loss = problem()
    list(train(averaged, loss, replace(schedule, average=decay), tmp_path / "averaged.pt", "k"))
    plain, loss = problem()
    expected = {name: value.clone() for name, value in plain.state_dict().items()}
    for i, _ in enumerate(train(plain, loss, schedule, tmp_path / "plain.pt", "k")):
        share = 1 - min(decay, (1 + i) / (10 + i))
        for name, value in plain.state_dict().items():
            expected[name] = value.clone() if value.dtype == torch.long else torch.lerp(expected[name], value, share)
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert load(tmp_path / "averaged.pt")["model"].keys() == expected.keys()
    assert any(not torch.equal(a, b) for a, b in zip(averaged.parameters(), plain.parameters(), strict=True))


def test_the_floor_is_a_share_of_each_groups_peak(tmp_path):
    model, loss = problem()
    groups = [{"params": [p], "lr": rate} for p, rate in zip(model.parameters(), (1e-1, 1e-6, 1e-3), strict=False)]
    seen = []
    torch_sgd = train_module.OPTIMIZERS["sgd"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "OPTIMIZERS", {"sgd": lambda g, s: seen.append(torch_sgd(g, s)) or seen[0]})
        schedule = Schedule(100, power=3.0, floor=0.1)
        list(train(model, loss, schedule, tmp_path / "m.pt", "k", groups=groups))
    assert [group["lr"] for group in seen[0].param_groups] == pytest.approx([1e-2, 1e-7, 1e-4])


def test_norms_and_biases_do_not_decay():
    model, _ = problem()
    convolutions, others = decayed_apart(model, 0.1)
    assert {p.ndim for p in convolutions["params"]} == {2} and "weight_decay" not in convolutions
    assert {p.ndim for p in others["params"]} == {1} and others["weight_decay"] == 0.0
    assert len(convolutions["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"floor": 1.5}, "share"), ({"average": 1.0}, "below 1"), ({"head_multiplier": 0.0}, "positive")],
)
def test_what_no_schedule_can_have_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        Schedule(5, **wrong)
