"""Methods are called as in papers."""

import pytest

from analog_samson.perturbation.schedules import SCHEDULES
from analog_samson.report.words import RAMPS, method_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sgd", "SGD"),
        ("sgd clip_weights=1.5", "SGD clipped at 1.5 std"),
        ("sgd clip_weights", "SGD clip_weights"),  # a variant of several values
        ("samson rho=0.2", "SAMSON ρ = 0.2"),
        ("samson p=2", "SAMSON p = 2"),
        ("samson rho=0.1 p=2 clip_weights=2", "SAMSON ρ = 0.1, p = 2, clipped at 2 std"),
        ("sam rho=1 fine-tuned", "SAM ρ = 1, fine-tuned"),
        ("rwp sigma=0.2 quadratic", "RWP σ = 0.2, quadratic ramp"),
        ("rwp sigma=0.2 ramp=0.25", "RWP σ = 0.2, ramp = 0.25"),
        (
            "hardware_aware sigma=1 device=reram_cmo linear ramp=0.5",
            "hardware aware σ = 1, device = reram_cmo, linear ramp over 50 %",
        ),
        ("samson p=2 rho=0.1", "SAMSON p = 2, ρ = 0.1"),
        ("samson rho", "SAMSON rho"),
        ("kick step=0.1", "kick step = 0.1"),
        ("rwp sigma=0.1 linear ramp=x", "RWP σ = 0.1, linear ramp, ramp = x"),
        ("mesa trajectory_weight=1 teacher_decay=0.99", "MESA λ = 1, teacher decay = 0.99"),
    ],
)
def test_a_method_is_called_as_in_papers(name, text):
    assert method_text(name) == text


def test_ramps_are_the_schedules_that_change_the_strength():
    assert set(RAMPS) == set(SCHEDULES) - {"constant"}
