"""Random worlds and seeds for tests of properties."""

from hypothesis import strategies as st

from minivis.data.world import SHAPES, SPLITS

seeds = st.integers(0, 2**63 - 1)
splits = st.sampled_from(SPLITS)
world_fields = st.fixed_dictionaries({
    "size": st.sampled_from([64, 96, 128, 200]),
    "shapes": st.lists(st.sampled_from(SHAPES), min_size=1, unique=True).map(tuple),
    "min_objects": st.integers(1, 4),
    "max_objects": st.integers(4, 9),
    "max_hidden": st.sampled_from([0.0, 0.2, 0.4]),
    "tilt": st.sampled_from([0.0, 30.0, 180.0]),
    "ground": st.sampled_from(["textured", "plain"]),
})  # fmt: skip
