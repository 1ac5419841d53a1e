"""The formulas again, in float64 NumPy, written as loops over single responses: an independent second opinion."""

import numpy as np


def estimator(name, rewards, components, weights, eps=1e-6):
    A = np.zeros_like(rewards, dtype=np.float64)
    P, G = rewards.shape
    if name in ("gdpo", "component_mean"):
        for key, w in weights.items():
            A += w * estimator("grpo", components[key].astype(np.float64), None, None, eps)
        if name == "component_mean":
            return A / sum(weights.values())
        return (A - A.mean()) / (A.std(ddof=1) + eps)
    for p in range(P):
        for i in range(G):
            r, others = rewards[p, i], np.delete(rewards[p], i)
            A[p, i] = r - (others.mean() if name == "rloo" else rewards[p].mean())
    if name == "grpo":
        A /= rewards.std(axis=1, ddof=1, keepdims=True) + eps
    if name == "batch_std":
        A /= rewards.std(ddof=1) + eps
    if name == "reinforce_baseline":
        A /= A.std(ddof=1) + eps
    return A


def ema_std(batches, tasks, decay=0.99, limit=5.0, eps=1e-6):
    """OneThinker's EMA-GRPO over several batches; returns the advantages of each."""
    memory, out = {}, []
    for rewards, task in zip(batches, tasks, strict=True):
        A = np.zeros_like(rewards)
        for k in np.unique(task):
            x = rewards[task == k]
            first, second = x.mean(), (x**2).mean()
            if k in memory:
                first, second = (decay * o + (1 - decay) * n for o, n in zip(memory[k], (first, second), strict=True))
            memory[k] = (first, second)
        for p, k in enumerate(task):
            c = rewards[p] - rewards[p].mean()
            A[p] = c / (np.sqrt(max(memory[k][1] - memory[k][0] ** 2, 1e-6)) + eps)
            if (np.abs(A[p]) > limit).any():
                A[p] = c / (rewards[p].std() + eps)
        out.append(A)
    return out


def token_losses(name, lp, old, A, mask, lo, hi, dual=None, tau=(1.0, 1.05)):
    """Loss of every token by plain loops; A is [P, G]."""
    L = np.zeros_like(lp)
    for p, i in np.ndindex(A.shape):
        m = mask[p, i]
        mean = (lp[p, i] - old[p, i])[m].mean() if m.any() else 0.0
        for t in np.flatnonzero(m):
            a, d = A[p, i], lp[p, i, t] - old[p, i, t]
            r = np.exp(mean if name in ("gspo", "gspo_token") else d)
            bounded = min(max(r, 1 - lo), 1 + hi) if lo is not None else None
            if name == "cispo":
                L[p, i, t] = -a * lp[p, i, t] * bounded
            elif name == "sapo":
                k = tau[0] if a > 0 else tau[1]
                L[p, i, t] = -a * (4 / k) / (1 + np.exp(-k * (r - 1)))
            else:
                L[p, i, t] = -min(r * a, bounded * a)
                if dual is not None and a < 0:
                    L[p, i, t] = min(L[p, i, t], -dual * a)
    return L


def aggregate(L, mask, how, max_response):
    rows = [(L[p, i][mask[p, i]]) for p, i in np.ndindex(mask.shape[:2]) if mask[p, i].any()]
    if how == "token_mean":
        return sum(r.sum() for r in rows) / sum(r.size for r in rows)
    if how == "sequence_mean":
        return np.mean([r.mean() for r in rows])
    return sum(r.sum() for r in rows) / (len(rows) * max_response)


def kl(kind, lp, ref):
    if kind == "k1":
        return lp - ref
    if kind == "k2":
        return (lp - ref) ** 2 / 2
    return np.exp(ref - lp) - (ref - lp) - 1
