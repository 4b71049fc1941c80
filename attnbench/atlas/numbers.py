"""How far one attention is from another, as numbers: of outputs, of rows, of singular values and of gradients.

All are relative to full attention, without unit; 0 is full attention itself. |.| is the root of the sum of squares.
Effective rank: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
"""

from math import nan

import torch
from torch import Tensor

Numbers = dict[str, float]


def relative(found: Tensor, truth: Tensor) -> float:
    """|found - truth| / |truth|; 0 where both are zero, nan where only the truth is."""
    size, error = float(truth.norm()), float((found - truth).norm())
    return error / size if size else nan if error else 0.0


def outputs(found: Tensor, truth: Tensor, plain: Tensor) -> Numbers:
    """Errors of one sample's outputs [N, C]; plain: those of the plain mean of all values.

    output_error: relative. output_error_centred: of what is left of both when their means over tokens are taken away,
        so that a constant, such as a bias, makes nothing look near. output_scale: the factor of the mechanism's output
        that comes nearest to full attention's, and output_error_scaled: what error is then left. output_error_mean:
        the error of the plain mean, below which a mechanism has to come to be worth anything.
    """
    size = float(found.square().sum())
    scale = float((found * truth).sum()) / size if size else 0.0
    return {
        "output_error": relative(found, truth),
        "output_error_centred": relative(found - found.mean(0), truth - truth.mean(0)),
        "output_scale": scale,
        "output_error_scaled": relative(scale * found, truth),
        "output_error_mean": relative(plain, truth),
    }


def rows(found: Tensor, truth: Tensor) -> Numbers:
    """Errors of attention rows [heads, N, N], means over heads.

    row_error: relative in Frobenius' norm. row_tv: half the sum of differences along a row, mean over rows; between two
        distributions that is the total variation, at most 1. row_missed: mass that full attention puts where the
        mechanism puts less, mean over rows. row_sum: mass of a row, mean; full attention's is 1. row_negative: mass
        below zero, mean over rows, as a positive number. row_error_mean: row_error of the plain mean of all tokens
        that full attention's row sees, the floor of what is worth a mechanism. row_entropy: full attention's own, as a
        share of what the plain mean has; 1 is flat.
    """
    apart = found - truth
    seen = truth > 0
    mean = seen.to(truth.dtype) / seen.sum(-1, keepdim=True)
    return {
        "row_error": each(apart, truth),
        "row_tv": float(apart.abs().sum(-1).mean()) / 2,
        "row_missed": float((-apart).clamp(min=0).sum(-1).mean()),
        "row_sum": float(found.sum(-1).mean()),
        "row_negative": float((-found).clamp(min=0).sum(-1).mean()),
        "row_error_mean": each(mean - truth, truth),
        "row_entropy": entropy(truth),
    }


def each(error: Tensor, truth: Tensor) -> float:
    """The mean over heads of relative errors in Frobenius' norm."""
    return float((error.flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())


def entropy(truth: Tensor) -> float:
    """Of rows that see more than one token, the mean of their entropy over the largest that they could have."""
    seen = (truth > 0).sum(-1)
    sums = -torch.special.xlogy(truth, truth).sum(-1)[seen > 1]
    return float((sums / seen[seen > 1].to(truth.dtype).log()).mean()) if len(sums) else nan


def spectrum(found: Tensor, truth: Tensor) -> Numbers:
    """Errors of the singular values of rows [heads, N, N], largest first, means over heads.

    spectrum_error: relative. rank, rank_full: effective ranks, exp of the entropy of the singular values as shares.
    """
    mine, theirs = torch.linalg.svdvals(found), torch.linalg.svdvals(truth)
    return {
        "spectrum_error": each((mine - theirs).unsqueeze(-1), theirs.unsqueeze(-1)),
        "rank": float(effective(mine).mean()),
        "rank_full": float(effective(theirs).mean()),
    }


def effective(values: Tensor) -> Tensor:
    """Effective ranks of singular values [heads, N]; 0 of none but zeros."""
    total = values.sum(-1, keepdim=True)
    share = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    return torch.where(total[..., 0] > 0, (-torch.special.xlogy(share, share).sum(-1)).exp(), 0.0)
