"""The patch geometry of the published models, which no code outside the model knows by itself."""

SQUARES = {"patch_size": 14, "merge_size": 2}
PATCHES = {**SQUARES, "temporal_patch_size": 2}
GEOMETRY = {**PATCHES, "window_size": 112, "tokens_per_second": 2}
