import pytest

pytest.importorskip("torch", reason="parity needs the test extra")

from pair import SMALL, SMALL_VISION, make_pair


@pytest.fixture(scope="session")
def tied():
    return make_pair(SMALL, SMALL_VISION)


@pytest.fixture(scope="session")
def untied():
    vision = SMALL_VISION | {"depth": 3, "fullatt_block_indexes": (2,), "tokens_per_second": 4.0}
    return make_pair(SMALL | {"tie_word_embeddings": False, "num_kv_heads": 1, "rms_norm_eps": 1e-5}, vision)


@pytest.fixture(scope="session")
def real_heads():
    """Widths per head, window and sections of the published 3B; fewer layers and narrower feed-forward layers."""
    text = {
        "hidden_size": 2048,
        "num_layers": 2,
        "num_heads": 16,
        "num_kv_heads": 2,
        "head_dim": 128,
        "intermediate_size": 256,
        "mrope_section": (16, 24, 24),
    }
    vision = {
        "depth": 3,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": 256,
        "fullatt_block_indexes": (1,),
        "window_size": 112,
    }
    return make_pair(text, vision)
