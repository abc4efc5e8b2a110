from __future__ import annotations

import pytest
import torch
from torch import nn

from ferbench.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 9)])
def test_orthogonalising_keeps_directions_and_levels_their_strength(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalised(matrix)
    inner = u.T @ result @ v.T
    assert result.shape == shape and result.dtype == matrix.dtype
    # in the basis of the singular vectors it is diagonal
    torch.testing.assert_close(inner, torch.diag(torch.diag(inner)), atol=1e-4, rtol=0)
    kept = torch.diag(inner)[s > 0.05 * s.max()]
    assert (kept > 0.65).all() and (kept < 1.25).all()


def step_of(optimizer: Muon, parameter: nn.Parameter, gradient: torch.Tensor) -> torch.Tensor:
    before = parameter.detach().clone()
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach() - before


def test_update_by_hand():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.randn(4, 2, 3, 3))
    optimizer = Muon([{"params": [filters], "orthogonal": True, "weight_decay": 0.5}], 0.1, 0.75, (0.9, 0.999))
    g1, g2 = torch.randn(2, 4, 2, 3, 3)
    start = filters.detach().clone()
    change = step_of(optimizer, filters, g1)
    # average = g1 / 4; Nesterov: a quarter of g1 and three quarters of the average; matrices are 4 x 18
    expected = -0.05 * start - 0.1 * 0.2 * 18**0.5 * orthogonalised((g1 / 4 + 3 / 4 * g1 / 4).flatten(1)).view_as(g1)
    torch.testing.assert_close(change, expected)
    start = filters.detach().clone()
    average = 3 / 4 * g1 / 4 + g2 / 4
    expected = -0.05 * start - 0.02 * 18**0.5 * orthogonalised((g2 / 4 + 3 / 4 * average).flatten(1)).view_as(g1)
    torch.testing.assert_close(step_of(optimizer, filters, g2), expected)


def test_update_is_about_as_large_as_adamws():
    torch.manual_seed(0)
    filters = nn.Parameter(torch.zeros(64, 32, 3, 3))
    optimizer = Muon([{"params": [filters], "orthogonal": True, "weight_decay": 0.0}], 1.0, 0.9, (0.9, 0.999))
    change = step_of(optimizer, filters, torch.randn(64, 32, 3, 3))
    assert change.square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_other_groups_are_adamws():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    filters = nn.Parameter(torch.randn(3, 3))
    groups = [
        {"params": [filters], "orthogonal": True, "weight_decay": 0.0},
        {"params": [ours], "weight_decay": 0.1},
        {"params": [nn.Parameter(torch.ones(2))], "weight_decay": 0.0},
    ]
    muon = Muon(groups, 0.01, 0.95, (0.9, 0.999))
    adamw = torch.optim.AdamW([theirs], 0.01, (0.9, 0.999), weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(5)
        ours.grad, theirs.grad, filters.grad = gradient.clone(), gradient.clone(), torch.randn(3, 3)
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)
    assert len(muon.param_groups) == 3


def test_state_goes_on():
    torch.manual_seed(0)
    gradients = torch.randn(4, 3, 6)

    def make() -> tuple[nn.Parameter, Muon]:
        p = nn.Parameter(torch.ones(3, 6))
        return p, Muon([{"params": [p], "orthogonal": True, "weight_decay": 0.1}], 0.1, 0.9, (0.9, 0.99))

    whole, whole_optimizer = make()
    part, part_optimizer = make()
    for g in gradients:
        step_of(whole_optimizer, whole, g)
    for g in gradients[:2]:
        step_of(part_optimizer, part, g)
    other, other_optimizer = make()
    other.data.copy_(part.data)
    other_optimizer.load_state_dict(part_optimizer.state_dict())
    for g in gradients[2:]:
        step_of(other_optimizer, other, g)
    assert torch.equal(whole, other)


def test_loss_scaler_skips_an_update():
    filters, bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.ones(3))
    groups = [{"params": [filters], "orthogonal": True, "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    optimizer, scaler = Muon(groups, 0.1, 0.9, (0.9, 0.99)), torch.amp.GradScaler("cpu")
    before = filters.detach().clone()
    for factor, changes in ((float("inf"), False), (1.0, True)):
        scaler.scale((filters.sum() + bias.sum()) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(filters, before) is torch.equal(bias, torch.ones(3)) is not changes
