"""When a phase has done its work."""

from types import SimpleNamespace

import pytest

from infimmr_jax.config import PlateauPromotion, StepsPromotion, TokensPromotion
from infimmr_jax.training.promotion import extend_history, plateau_gain, promotion_due

PLATEAU = PlateauPromotion(kind="plateau", window=2, least_gain=0.1)


def test_the_gain_is_between_two_windows():
    assert plateau_gain([0.1, 0.2, 0.4], 2) is None
    assert plateau_gain([9.0, 0.1, 0.3, 0.4, 0.6], 2) == pytest.approx(0.3)


def test_only_what_a_decision_needs_is_kept():
    history = ()
    for value in range(7):
        history = extend_history(history, {}, lambda value=value: {"reward/accuracy": float(value)}, PLATEAU)
    assert history == (3.0, 4.0, 5.0, 6.0)
    assert extend_history((), {}, unread, StepsPromotion(kind="steps")) == ()


def unread():
    raise AssertionError("this would wait for the update")


def test_tokens_of_all_draws_are_added_up_and_end_the_phase():
    rule = TokensPromotion(kind="tokens", tokens=1000, min_steps=2)
    first = extend_history((), {"sampling/tokens": 700.0}, unread, rule)
    second = extend_history(first, {}, lambda: {"rollout/tokens": 300.0}, rule)
    assert (first, second) == ((700.0,), (1000.0,))
    phase = SimpleNamespace(promotion=rule)

    def ends(made, sampled):
        return promotion_due(phase, made - 1, (sampled,), unread, {})

    assert ends(2, 999.0) == (False, {"promotion/tokens": 999.0})
    assert ends(2, 1000.0) == (True, {"promotion/tokens": 1000.0})
    assert ends(1, 1000.0)[0] is False
