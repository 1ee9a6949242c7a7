"""Control parameters of cells whose weight is not set directly."""

import torch
from torch import Tensor, nn

LARGEST_SHARE = 0.999
"""Largest |W| / A that control parameters are found for, as in the notebooks of Xu et al."""


class MicroRing(nn.Module):
    """The weight of a micro-ring as a function of its control parameter: W(theta).

    W = A - 2 A / (1 + ((theta - x0) / gamma)^2), a Lorentzian line between -A and A (Xu et al.,
    Nat. Commun. 17, 1766 (2026); the constants are those of their notebooks). Registered with
    `torch.nn.utils.parametrize.register_parametrization(layer, "weight", MicroRing())`, the control
    parameters are what an optimizer trains and what every rule perturbs.

    Args:
        amplitude: A, the largest |W|, above 0.
        resonance: x0, in units of theta.
        width: gamma, in units of theta, above 0.

    Example:
        >>> ring = MicroRing(amplitude=1.0)
        >>> theta = ring.right_inverse(torch.tensor([-0.5, 0.0, 0.5]))
        >>> ring(theta)
        tensor([-0.5000,  0.0000,  0.5000])
    """

    def __init__(self, amplitude: float = 1.0, resonance: float = 0.0, width: float = 0.15) -> None:
        super().__init__()
        self.amplitude, self.resonance, self.width = amplitude, resonance, width

    def forward(self, theta: Tensor) -> Tensor:
        """Return the weights at some control parameters."""
        detuning = (theta - self.resonance) / self.width
        return self.amplitude - 2 * self.amplitude / (1 + detuning**2)

    def slope(self, theta: Tensor) -> Tensor:
        """Return dW/dtheta, in units of weight / theta.

        Example:
            >>> MicroRing(width=0.5).slope(torch.tensor([-0.5, 0.0, 0.5]))
            tensor([-2.,  0.,  2.])
        """
        detuning = (theta - self.resonance) / self.width
        return 4 * self.amplitude * detuning / (self.width * (1 + detuning**2) ** 2)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return control parameters for weights, first clipped to 0.999 A.

        Of the two control parameters of a weight it is the one above the resonance.
        """
        w = (weight / self.amplitude).clamp(-LARGEST_SHARE, LARGEST_SHARE)
        return self.width * torch.sqrt((1 + w) / (1 - w)) + self.resonance
