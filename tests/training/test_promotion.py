"""When a phase has done its work."""

import pytest

from infimmr_jax.config import PromotionSection
from infimmr_jax.training.promotion import kept_history, plateau_gain

PLATEAU = PromotionSection(kind="plateau", window=2, least_gain=0.1)


def test_the_gain_is_between_two_windows():
    assert plateau_gain([0.1, 0.2, 0.4], 2) is None
    assert plateau_gain([9.0, 0.1, 0.3, 0.4, 0.6], 2) == pytest.approx(0.3)


def test_only_what_a_decision_needs_is_kept():
    history = ()
    for value in range(7):
        history = kept_history(history, float(value), PLATEAU)
    assert history == (3.0, 4.0, 5.0, 6.0)
    assert kept_history((), 1.0, PromotionSection()) == ()
