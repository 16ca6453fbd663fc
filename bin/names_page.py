"""The page of names: data sets that go by one, and networks, made from the recipes and presets themselves."""

import torch

from geomem.data.recipes import declared_source, known_recipes, recipe_table
from geomem.models import NETWORKS, build_network, default_network

DATA = """# Data sets and networks by name

## Data sets

Each is a recipe in `data_recipes/`, which says where its points come from, how they are split, and what was promised of
them; `geomem data check NAME` compares. Official files are read where one of the paths lies below the folder of
`--data-root` or the environment variable GEOMEM_DATA; without them what is on the Hugging Face hub is fetched.

| DATA | what it is | one point | training | held out | read from |
|---|---|---|---|---|---|
"""
NETWORK = """
## Networks

`geomem train --network NAME`. Without it vectors take `{vectors}`, signals `{signals}`, pictures of at most 16 pixels a
side `{small}` and other pictures `{large}`. Parameters are those of a network without classes, for one point of the
shape beside them.

| `--network` | what it is | takes | parameters | for points of | learning rate |
|---|---|---|---|---|---|
"""
AXES = {1: "vectors", 2: "signals", 3: "pictures", 4: "volumes"}


def names_page() -> str:
    """The whole page, in Markdown."""
    usual = {"vectors": (64,), "signals": (1, 140), "small": (1, 16, 16), "large": (3, 32, 32)}
    head = NETWORK.format(**{name: default_network(shape) for name, shape in usual.items()})
    return DATA + "".join(map(_data_row, known_recipes())) + head + "".join(map(_network_row, NETWORKS))


def _data_row(name: str) -> str:
    recipe = recipe_table(known_recipes()[name])
    split, expected = recipe.get("split", {}), recipe.get("expected", {})
    train, heldout = (expected.get(part, split.get(part)) for part in ("train", "heldout"))
    return (f"| `{name}` | {recipe['description']}. Licence: {recipe['licence']} | {_shape(recipe['points']['shape'])} "
            f"| {train:,} | {heldout:,} | {declared_source(recipe)} |\n")


def _network_row(name: str) -> str:
    preset = NETWORKS[name]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_network(name, preset.shape).parameters())
    return (f"| `{name}` | {preset.about} | {', '.join(AXES[n] for n in preset.dims)} | {parameters / 1e6:.2f}M "
            f"| {_shape(preset.shape)} | {preset.learning_rate:g} |\n")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
