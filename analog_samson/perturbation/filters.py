"""Output filters of weights: the rows of most layers, the columns of transposed convolutions."""

from torch import Tensor, nn


def transposed_groups(model: nn.Module) -> dict[str, int]:
    """The weights of transposed convolutions, and the number of groups of each.

    Their shape is (inputs, outputs / groups, kernel), that of other layers begins with the outputs.

    Args:
        model: Any network.

    Returns:
        Groups by the name of the parameter.

    Example:
        >>> transposed_groups(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 6, 3)))
        {'1.weight': 1}
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: module.groups
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvTransposeNd)
        for parameter in module.parameters()
        if parameter.shape == module.weight.shape
    }


def filters_first(weight: Tensor, groups: int | None) -> Tensor:
    """A weight with its output filters as the first dimension; its own inverse.

    Args:
        weight: The weight, or a tensor of its layout.
        groups: Groups of a transposed convolution; None: of another layer, nothing changes.

    Returns:
        Of shape (outputs, inputs / groups, kernel), if the weight has (inputs, outputs / groups,
        kernel), and the reverse.

    Example:
        >>> import torch
        >>> filters_first(torch.zeros(4, 3, 5, 5), groups=2).shape
        torch.Size([6, 2, 5, 5])
    """
    if groups is None:
        return weight
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def for_weight(of_filters: Tensor, weight: Tensor, groups: int | None) -> Tensor:
    """One number an output filter, shape (outputs, 1, ...), to be broadcast to a weight."""
    if groups is None:
        return of_filters
    n_inputs = len(weight) // groups
    return filters_first(of_filters.expand(-1, n_inputs, *[-1] * (weight.ndim - 2)), groups)
