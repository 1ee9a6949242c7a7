"""The optimizer class takes the steps of this package's own training, bit for bit."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from analog_samson.algorithm import Batch
from analog_samson.checkpoint import TrainingSpec
from analog_samson.data import load_dataset
from analog_samson.perturbation import Perturbed, asam, rwp, sam, samson
from analog_samson.training.loop import _begin
from analog_samson.training.step import gradients_of, rule_of, update

METHODS = {
    "sam": {"rho": 0.05},
    "asam": {"rho": 0.5},
    "asam, popular": {"rho": 2.0, "dialect": "popular"},
    "samson": {"rho": 0.5},
    "samson, p = 2": {"rho": 0.5, "p": 2.0},
    "rwp": {"sigma": 0.1},
    "arwp": {"sigma": 0.1},
    "noise_injection": {"sigma": 0.1, "drop_share": 0.1, "clip_weights": 0.0},
    "hardware_aware": {"sigma": 1.0, "device": "pcm_like", "clip_weights": 0.0},
}


class Network(nn.Module):
    """Convolution, batch normalisation and dropout: all that a second pass may disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(self.drop(x.flatten(1)))


def batches() -> list[Batch]:
    data = load_dataset("digits")
    parts = torch.arange(96).split(32)
    images = data.normalise(data.train.images[:96])
    return [Batch(images[one], data.train.labels[one], one) for one in parts]


def networks(name: str) -> tuple[TrainingSpec, object, nn.Module]:
    """The state of a training of ours, and a copy of its network."""
    spec = TrainingSpec(
        model="test_optimizer:Network",
        method=name.partition(",")[0],
        batch_size=32,
        lr=0.1,
        weight_decay=0.0,
        channels_last=False,
        **METHODS[name],
    )
    state = _begin(spec, load_dataset("digits"), ())
    twin = Network()
    twin.load_state_dict(state.model.state_dict())
    return spec, state, twin.train()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["two steps", "closure"])
@pytest.mark.parametrize("name", METHODS)
def test_it_equals_our_own_training_step_bit_for_bit(name, form):
    spec, state, twin = networks(name)
    ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))
    needs_gradient = spec.entry.step == "two passes"
    optimizer = Perturbed(
        twin.named_parameters(),
        rule_of(spec, spec.full_strength, state, theirs),
        torch.optim.SGD,
        model=twin,
        needs_gradient=needs_gradient,
        lr=0.1,
        momentum=0.9,
    )
    criterion = nn.CrossEntropyLoss()
    for number, batch in enumerate(batches()):

        def loss(batch: Batch = batch) -> Tensor:
            optimizer.zero_grad()
            value = criterion(twin(batch.images), batch.labels)
            value.backward()
            return value

        with torch.random.fork_rng():
            torch.manual_seed(number)
            if form == "closure":
                optimizer.step(loss)
            else:
                before = torch.get_rng_state()
                if needs_gradient:
                    loss()
                optimizer.first_step(zero_grad=True)
                torch.set_rng_state(before)
                loss()
                optimizer.second_step()
        with torch.random.fork_rng():
            torch.manual_seed(number)
            rule = rule_of(spec, spec.full_strength, state, ours)
            gradients_of(state, spec, batch, rule, spec.full_strength)
            update(state, spec)
        for key, value in state.model.state_dict().items():
            assert torch.equal(twin.state_dict()[key], value), (number, key)


def small() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 2), torch.randn(8, 4)


def test_restore_and_step_are_the_second_step():
    """The form for a GradScaler: restore before its step."""
    results = []
    for restored in (False, True):
        model, x = small()
        optimizer = Perturbed(
            model.named_parameters(), partial(sam, rho=0.1), torch.optim.SGD, lr=0.1
        )
        model(x).square().sum().backward()
        optimizer.first_step(zero_grad=True)
        assert optimizer.is_perturbed
        model(x).square().sum().backward()
        if restored:
            optimizer.restore()
            optimizer.step()
        else:
            optimizer.second_step()
        assert not optimizer.is_perturbed
        results.append(model.weight.detach().clone())
    assert torch.equal(*results)


def test_rules_of_the_sam_family_do_not_depend_on_the_scale_of_a_grad_scaler():
    model, x = small()
    offsets = []
    for scale in (1.0, 1024.0):
        optimizer = Perturbed(
            model.named_parameters(), partial(samson, rho=0.1), torch.optim.SGD, lr=0.1
        )
        optimizer.zero_grad()
        (scale * model(x).square().sum()).backward()
        before = model.weight.detach().clone()
        optimizer.first_step()
        offsets.append(model.weight.detach() - before)
        optimizer.restore()
        assert torch.equal(model.weight, before)
    torch.testing.assert_close(*offsets, rtol=1e-5, atol=1e-8)


def test_accumulated_parts_are_one_batch():
    weights = []
    for n_parts in (1, 4):
        model, x = small()
        optimizer = Perturbed(
            model.named_parameters(), partial(asam, rho=0.1), torch.optim.Adam, lr=0.01
        )
        for step in (optimizer.first_step, optimizer.second_step):
            for part in x.chunk(n_parts):
                (model(part).square().mean() / n_parts).backward()
            step(zero_grad=True)
        weights.append(model.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_schedulers_and_state_dicts_are_those_of_the_base_optimizer():
    model, x = small()
    optimizer = Perturbed(
        model.named_parameters(), partial(sam, rho=0.1), torch.optim.SGD, lr=0.1, momentum=0.9
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)

    def loss() -> Tensor:
        value = model(x).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    scheduler.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    other = Perturbed(
        model.named_parameters(), partial(sam, rho=0.1), torch.optim.SGD, lr=0.1, momentum=0.9
    )
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == pytest.approx(0.01)
    momentum = other.base_optimizer.state[model.weight]["momentum_buffer"]
    assert torch.equal(momentum, optimizer.base_optimizer.state[model.weight]["momentum_buffer"])


def test_parameters_without_names_are_weights_if_they_are_matrices():
    moved = []
    for parameters in ("parameters", "named_parameters"):
        model, x = small()
        optimizer = Perturbed(
            getattr(model, parameters)(), partial(samson, rho=0.1), torch.optim.SGD, lr=0.1
        )
        model(x).square().sum().backward()
        optimizer.first_step()
        moved.append(model.weight.detach().clone())
    assert torch.equal(*moved)


def test_after_an_error_in_the_second_pass_the_weights_are_back():
    model, x = small()
    before = model.weight.detach().clone()
    optimizer = Perturbed(model.named_parameters(), partial(sam, rho=0.1), torch.optim.SGD, lr=0.1)
    calls = []

    def loss() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        value = model(x).square().sum()
        value.backward()
        return value

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(loss)
    assert torch.equal(model.weight, before)
    assert not optimizer.is_perturbed


def test_wrong_use_is_one_sentence():
    model, x = small()
    with pytest.raises(ValueError, match="base_optimizer is a class of torch's optimizers"):
        Perturbed(model.parameters(), partial(sam, rho=0.1), torch.optim.SGD([x], lr=1.0))
    with pytest.raises(ValueError, match="rule is a function of weights and gradients"):
        Perturbed(model.parameters(), "sam", torch.optim.SGD, lr=0.1)
    optimizer = Perturbed(model.parameters(), partial(sam, rho=0.1), torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="No parameter has a gradient"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match="not perturbed; call first_step"):
        optimizer.second_step()
    model(x).sum().backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="perturbed already"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match="call second_step"):
        optimizer.step()
    optimizer.restore()


def test_a_random_rule_needs_one_pass():
    model, x = small()
    seen = []
    rule = partial(rwp, sigma=0.5, generator=torch.Generator().manual_seed(0))
    optimizer = Perturbed(
        model.named_parameters(), rule, torch.optim.SGD, needs_gradient=False, lr=0.1
    )
    before = model.weight.detach().clone()

    def loss() -> Tensor:
        seen.append(model.weight.detach().clone())
        value = model(x).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert len(seen) == 1
    assert not torch.equal(seen[0], before)
    assert math.isfinite(float(model.weight.detach().sum()))
