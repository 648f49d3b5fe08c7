"""All that can be drawn: fifty everyday things.

Each has one main colour, its usual one unless the caption names another: an outline does not show a
colour, and a model that must guess paints things in several.
"""

from tools.demo import animals, household, kitchen, outdoors
from tools.demo.brush import Thing

_CLOTH = ("striped", "spotted")
_SOFT = ("woollen", "striped")

THINGS: dict[str, Thing] = {
    "mug": Thing(kitchen.mug, ("table",), "blue", _CLOTH, tall=1.7, wide=2.0, gloss=0.45),
    "bottle": Thing(kitchen.bottle, ("table",), "green", tall=2.3, wide=0.9, gloss=0.7),
    "teapot": Thing(kitchen.teapot, ("table",), "white", _CLOTH, tall=1.75, wide=2.7, gloss=0.55),
    "bowl": Thing(kitchen.bowl, ("table",), "blue", ("wooden",), tall=1.25, wide=2.0, gloss=0.4),
    "apple": Thing(kitchen.apple, ("table",), "red", tall=2.0, wide=1.8, gloss=0.5),
    "pear": Thing(kitchen.pear, ("table",), "green", tall=2.1, wide=1.4),
    "banana": Thing(kitchen.banana, ("table",), "yellow", tall=1.4, wide=2.4),
    "cake": Thing(kitchen.cake, ("table",), "pink", tall=1.8, wide=2.0),
    "candle": Thing(kitchen.candle, ("table",), "white", tall=2.0, wide=1.5, own_size=0.9),
    "cactus": Thing(kitchen.cactus, ("table",), "orange", tall=2.3, wide=1.6, gloss=0.1),
    "vase": Thing(kitchen.vase, ("table",), "blue", ("striped",), tall=2.4, wide=1.5, gloss=0.5),
    "glass": Thing(kitchen.glass, ("table",), "orange", tall=1.9, wide=1.1, gloss=0.5),
    "ice cream": Thing(kitchen.ice_cream, ("table",), "pink", tall=2.1, wide=1.1),
    "ball": Thing(household.ball, ("floor", "land"), "red", _CLOTH, tall=1.9, wide=1.9, gloss=0.5),
    "cube": Thing(household.cube, ("table",), "yellow", ("wooden",), tall=2.0, wide=2.1),
    "cylinder": Thing(household.cylinder, ("table",), "blue", tall=1.9, wide=1.3),
    "cone": Thing(household.cone, ("table",), "orange", tall=2.0, wide=1.6),
    "chair": Thing(
        household.chair, ("floor",), "brown", ("wooden",), tall=2.4, wide=1.7, gloss=0.2
    ),
    "table": Thing(
        household.table, ("floor",), "brown", ("wooden",), tall=1.5, wide=3.0, gloss=0.2
    ),
    "sofa": Thing(household.sofa, ("floor",), "green", _CLOTH, tall=1.5, wide=2.8, gloss=0.05),
    "bed": Thing(household.bed, ("floor",), "blue", _CLOTH, tall=1.4, wide=3.0, gloss=0.05),
    "lamp": Thing(household.lamp, ("table", "floor"), "yellow", ("striped",), tall=2.0, wide=1.5),
    "book": Thing(household.book, ("table",), "red", tall=1.8, wide=1.9, gloss=0.15),
    "clock": Thing(household.clock, ("table",), "red", tall=2.1, wide=1.9, gloss=0.5),
    "hat": Thing(household.hat, ("table",), "brown", ("woollen",), tall=1.6, wide=2.4, gloss=0.1),
    "shoe": Thing(household.shoe, ("floor",), "red", tall=1.25, wide=2.3, gloss=0.2),
    "umbrella": Thing(household.umbrella, ("floor", "land"), "purple", _CLOTH, tall=2.3, wide=2.5),
    "guitar": Thing(household.guitar, ("floor",), "orange", ("wooden",), tall=2.5, wide=1.3),
    "gift": Thing(household.gift, ("table",), "red", _CLOTH, tall=1.8, wide=1.8),
    "key": Thing(household.key, ("table",), "yellow", tall=2.0, wide=0.9, gloss=0.8),
    "cat": Thing(animals.cat, ("floor", "land"), "grey", ("striped",), tall=2.2, wide=2.2),
    "dog": Thing(animals.dog, ("land", "floor"), "brown", ("spotted",), tall=2.0, wide=2.3),
    "rabbit": Thing(animals.rabbit, ("land",), "grey", tall=2.7, wide=1.4, own_size=0.85),
    "teddy": Thing(animals.teddy, ("floor",), "brown", tall=2.2, wide=2.0),
    "tortoise": Thing(animals.tortoise, ("land",), "green", tall=1.4, wide=2.9, own_size=0.8),
    "frog": Thing(animals.frog, ("land",), "green", ("spotted",), tall=1.6, wide=2.1, own_size=0.8),
    "bird": Thing(animals.bird, ("land",), "blue", tall=1.7, wide=2.6, own_size=0.8),
    "butterfly": Thing(animals.butterfly, ("sky",), "orange", ("spotted",), tall=1.9, wide=2.3),
    "snail": Thing(animals.snail, ("land",), "orange", tall=1.5, wide=2.4, own_size=0.7),
    "fish": Thing(animals.fish, ("water",), "orange", ("striped",), tall=1.8, wide=2.3, gloss=0.5),
    "duck": Thing(animals.duck, ("water", "land"), "yellow", tall=1.75, wide=2.7, own_size=0.8),
    "person": Thing(animals.person, ("land", "floor"), "red", _SOFT, tall=2.3, wide=1.6),
    "face": Thing(animals.portrait, ("floor",), "blue", _SOFT, tall=2.1, wide=2.0),
    "house": Thing(outdoors.house, ("land",), "cream", ("wooden",), tall=2.1, wide=2.1, gloss=0),
    "castle": Thing(outdoors.castle, ("land",), "grey", tall=1.8, wide=2.5, gloss=0),
    "tent": Thing(outdoors.tent, ("land",), "orange", ("striped",), tall=1.5, wide=2.7, gloss=0),
    "tree": Thing(outdoors.tree, ("land",), "green", tall=2.2, wide=1.6, gloss=0),
    "flower": Thing(outdoors.flower, ("land",), "pink", tall=2.2, wide=1.4, gloss=0.1),
    "tulip": Thing(outdoors.tulip, ("land",), "red", tall=2.05, wide=1.0, gloss=0.15),
    "mushroom": Thing(outdoors.mushroom, ("land",), "red", tall=1.7, wide=1.8),
    "car": Thing(outdoors.car, ("land",), "red", tall=1.3, wide=2.6, own_size=0.9, gloss=0.55),
    "bus": Thing(outdoors.bus, ("land",), "yellow", tall=1.6, wide=2.9, gloss=0.5),
    "train": Thing(outdoors.train, ("land",), "green", tall=1.7, wide=2.7, gloss=0.5),
    "bicycle": Thing(outdoors.bicycle, ("land",), "blue", tall=1.7, wide=3.0, gloss=0.5),
    "boat": Thing(outdoors.boat, ("water",), "red", ("wooden", "striped"), tall=2.0, wide=2.2),
    "rocket": Thing(outdoors.rocket, ("sky",), "white", tall=2.3, wide=1.5, gloss=0.6),
    "balloon": Thing(outdoors.balloon, ("sky",), "red", _CLOTH, tall=2.2, wide=1.6),
    "plane": Thing(outdoors.plane, ("sky",), "white", tall=1.5, wide=2.6, gloss=0.5),
    "star": Thing(outdoors.star, ("sky",), "yellow", tall=2.0, wide=2.0, own_size=0.7),
    "sun": Thing(outdoors.sun, ("sky",), "yellow", own_size=0.4, tall=3.6, wide=3.6, fixed=True),
    "cloud": Thing(outdoors.cloud, ("sky",), "white", own_size=0.5, tall=1.6, wide=3.0, fixed=True),
    "moon": Thing(outdoors.moon, ("sky",), "yellow", own_size=0.45, fixed=True),
}
