"""Names of topologies, and bounds."""

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.plan.chips import CHIPS, parse_topology
from infimmr_jax.plan.cost import Part, merged


@pytest.mark.parametrize(
    ("name", "chips"), [("v5e:4x4", 16), ("v5p:2x2x2", 8), ("v6e:2x4", 8), ("gpu:h100x8", 8), ("v4:2x2x1", 4)]
)
def test_a_name_is_read_and_written(name, chips):
    topology = parse_topology(name)
    assert topology.chips == chips
    assert topology.name == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5e:4", "topology 'v5e:4' is not known"),
        ("v9:4x4", "chips: v4, v5e"),
        ("gpu:v5ex8", "is not known"),
        ("h100x8", "gpu:h100x8"),
        ("v5p:2x2", "slices of v5p have 3 sides"),
        ("v5e:0x4", "has no chips"),
    ],
)
def test_other_names_are_refused(name, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_topology(name)


def test_the_longest_resource_is_the_bound():
    chip = CHIPS["v5e"]
    part = merged([Part("a", chip.flops, chip.bandwidth, 0.0), Part("a", chip.flops, 0.0, chip.links)])[0]
    assert part.seconds(chip) == {"compute": 2.0, "memory": 1.0, "links": 1.0}
    assert (part.bound(chip), part.least(chip)) == ("compute", 2.0)
