"""Pooling of narrow images, channels outermost: in C, where torch's is slow."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analog_samson.compiled import kernels


class Halving(nn.Module):
    """Largest of every 2 x 2 pixels, the numbers of ``torch.nn.MaxPool2d(2)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool images, shape (n, channels, height, width) to (n, channels, height/2, width/2)."""
        built = None if torch.compiler.is_compiling() else kernels.library_for(x)
        n_images, planes, height, width = x.shape
        if built is None or height % 2 or width % 2 or not x.is_contiguous():
            return F.max_pool2d(x, 2)
        out = x.new_empty(n_images, planes, height // 2, width // 2)

        def run(first: int, count: int) -> int:
            pointers = x[first].data_ptr(), out[first].data_ptr()
            return int(built.halve(*pointers, count, planes, *out.shape[2:]))

        if out.numel():
            kernels.share(run, n_images)
        return out


def halvings(network: nn.Module) -> dict[int, nn.Module]:
    """Id of every pooling that halves images to what takes its place."""
    return {id(module): Halving() for module in network.modules() if _halves(module)}


def _halves(module: nn.Module) -> bool:
    if not isinstance(module, nn.MaxPool2d) or module.ceil_mode or module.return_indices:
        return False
    geometry = module.kernel_size, module.stride, module.padding, module.dilation
    wanted = zip(geometry, (2, 2, 0, 1), strict=True)
    return all(value in (number, (number, number)) for value, number in wanted)
