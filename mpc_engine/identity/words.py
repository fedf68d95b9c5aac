"""Fingerprints as words, for comparing them over the telephone.

Each word stands for one byte. The list is this project's own: everyday words of four to eight letters, of
which no two begin with the same four letters or differ in a single one.
"""

from __future__ import annotations

BYTES = 12
"""So many bytes of a digest are spoken: 96 bits, which nobody can hit by trying keys."""

WORDS = tuple(
    """
    acorn album alpine amber anchor angle apple apron arch arrow atlas attic autumn avenue axle badge bagel
    bakery bamboo banjo basket beacon beetle berry bicycle biscuit blanket blossom bonnet bottle boulder
    bracket bread bridge bucket buffalo bundle butter cabin cactus camel candle canoe carpet castle cedar
    cello chalk cheese cherry chimney circus clover coconut coffee comet copper coral cotton cradle crayon
    cricket crystal cupboard curtain cushion dagger daisy dance decade desert diamond dinner doctor dolphin
    dragon drawer drum duck eagle earth echo elbow elephant emerald engine envelope evening fabric falcon
    family feather fence fiddle flame flute forest fossil freckle frost galaxy garden garlic giant ginger
    giraffe glacier glove goblet grape gravel guitar hammer harbour hazel hedge helmet heron hill honey
    iceberg indigo insect island ivory jacket jaguar jelly jewel jigsaw journey judge jungle kayak kennel
    kettle kitchen kiwi knight ladder lagoon lantern lemon leopard library lily lion lobster lotus lunch
    magnet mango maple marble meadow melon mermaid midnight mirror monkey mountain muffin museum napkin
    needle north novel nugget nutmeg oasis oatmeal ocean octopus office olive onion opera orange orchid
    ostrich otter oven oyster palace pancake parrot pebble pencil pepper piano picnic pigeon planet plum
    poppy potato puddle pyramid quarry queen quilt rabbit radish railway raven ribbon river robin rocket
    rose ruby salmon scarf school shadow shovel silver sketch snow sofa sparrow spider spoon squirrel summer
    swan table teapot temple thunder tiger timber tomato tractor trumpet tulip tunnel turtle umbrella velvet
    village violin vulture wagon walnut water weasel willow window winter wizard wolf yacht yoghurt zebra
    zigzag
    """.split()  # noqa: SIM905
)


def words(digest: bytes) -> tuple[str, ...]:
    """Return the first 12 bytes of a digest as 12 of 256 words. Raises ValueError for a shorter digest."""
    if len(digest) < BYTES:
        raise ValueError(f"a digest has at least {BYTES} bytes")
    return tuple(WORDS[byte] for byte in digest[:BYTES])
