"""Muon: orthogonalized updates for convolutions, AdamW for all other parameters."""

import torch

MOMENTUM = 0.95  # of Muon
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's Newton-Schulz iteration
ITERATIONS = 5
BETAS = (0.9, 0.999)  # of AdamW
ROOT_MEAN_SQUARE = 0.2  # about that of AdamW's updates


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix with all its singular values made nearly equal, 0.7 to 1.2.

    For a matrix U S Vᵀ this is about U Vᵀ, without a decomposition (Jordan et al. 2024).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    result = matrix.T if tall else matrix
    result = result / result.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result.T if tall else result


class Muon(torch.optim.Optimizer):
    """Muon for the weights of convolutions, AdamW for all other parameters.

    An update of Muon is the momentum, orthogonalized, so that it is about equally large in every
    direction of the weight matrix. It is scaled to the size of AdamW's updates, so both share
    learning rate and weight decay (Liu et al. 2025).
    """

    def __init__(self, parameters, lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                is_convolution = parameter.ndim == 4
                update = self._muon(parameter) if is_convolution else self._adamw(parameter)
                parameter.add_(update, alpha=-group["lr"])

    def _muon(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the update of a convolution, whose weight is one matrix of (C, other axes)."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        ahead = weight.grad.lerp(momentum, MOMENTUM)  # Nesterov
        update = orthogonalize(ahead.flatten(1))
        return update.view_as(weight) * ROOT_MEAN_SQUARE * max(update.shape) ** 0.5

    def _adamw(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return AdamW's update; a step of torch's own, within this one, would run hooks twice."""
        state = self.state[parameter]
        if not state:
            state["steps"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["mean_square"] = torch.zeros_like(parameter)
        state["steps"] += 1
        first, second = BETAS
        mean = state["mean"].lerp_(parameter.grad, 1 - first)
        mean_square = state["mean_square"].lerp_(parameter.grad.square(), 1 - second)
        unbiased = mean_square / (1 - second ** state["steps"])
        return mean / (1 - first ** state["steps"]) / (unbiased.sqrt() + 1e-8)
