"""The classes of the named data sets, in the order of their labels."""

from cgan.attributes import JOINT, join_values

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
"""EMNIST's letters, lower-case as torchvision names them. Each class has both cases."""
BALANCED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
"""EMNIST's balanced classes. The other lower-case letters look like their capitals, and share
their classes (Cohen et al. 2017)."""
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
"""CIFAR-100's coarse labels, and the fine labels of each: Krizhevsky 2009, and the page of the data
set, with the names of its file ``meta``."""
CIFAR100 = tuple(
    sorted(
        join_values((coarse, fine)) for coarse, names in SUPERCLASSES.items()
        for fine in names.split()
    )
)  # fmt: skip
"""Classes of two attributes, the coarse and the fine label."""
CIFAR100_FROM_FINE = sorted(range(len(CIFAR100)), key=lambda label: CIFAR100[label].split(JOINT)[1])
"""The class of each fine label. The fine labels are numbered in the order of their names."""
