"""Which of torchvision's data sets can be used here, and why the others cannot.

A data set needs one class per picture, a train and a test split of its own, and a download by URL.
A test holds these tables to torchvision.datasets, so that reading them imports nothing.
"""

import difflib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

Arguments = Mapping[str, str | bool]  # of a data set's class, for one of its splits


@dataclass(frozen=True)
class TorchvisionDataset:
    """A class in torchvision.datasets, its arguments for each split, its licence and its source.

    handwriting: whether its images are of written letters or digits, which slant.
    """

    class_name: str
    train: Arguments
    test: Arguments
    licence: str
    source: str
    handwriting: bool


def _emnist(split: str) -> tuple[Arguments, Arguments]:
    return {"split": split, "train": True}, {"split": split, "train": False}


TRAIN: tuple[Arguments, Arguments] = ({"train": True}, {"train": False})
SPLIT: tuple[Arguments, Arguments] = ({"split": "train"}, {"split": "test"})
TRAINVAL: tuple[Arguments, Arguments] = ({"split": "trainval"}, {"split": "test"})
SEE = "see its source"
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLIP = "https://github.com/openai/CLIP/blob/main/data"
EMNIST = "https://www.westernsydney.edu.au/bens/home/reproducible_research/emnist"
ETH = "https://data.vision.ee.ethz.ch/cvl/datasets_extra"
LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets"
VGG = "https://www.robots.ox.ac.uk/~vgg/data"

# Name, arguments for each split, licence, source. What follows a hyphen chooses within a class.
_ROWS: tuple[tuple[str, tuple[Arguments, Arguments], str, str], ...] = (
    ("CIFAR10", TRAIN, SEE, CIFAR),
    ("CIFAR100", TRAIN, SEE, CIFAR),
    ("Country211", SPLIT, "Creative Commons, varies by picture", f"{CLIP}/country211.md"),
    ("DTD", SPLIT, "for research only", f"{VGG}/dtd/"),
    ("EMNIST-balanced", _emnist("balanced"), SEE, EMNIST),
    ("EMNIST-byclass", _emnist("byclass"), SEE, EMNIST),
    ("EMNIST-bymerge", _emnist("bymerge"), SEE, EMNIST),
    ("EMNIST-digits", _emnist("digits"), SEE, EMNIST),
    ("EMNIST-letters", _emnist("letters"), SEE, EMNIST),
    ("EMNIST-mnist", _emnist("mnist"), SEE, EMNIST),
    ("FGVCAircraft", TRAINVAL, "for non-commercial research only", f"{VGG}/fgvc-aircraft/"),
    ("FashionMNIST", TRAIN, "MIT", "https://github.com/zalandoresearch/fashion-mnist"),
    ("Flowers102", SPLIT, SEE, f"{VGG}/flowers/102/"),
    ("Food101", SPLIT, SEE, f"{ETH}/food-101/"),
    ("GTSRB", SPLIT, SEE, "https://benchmark.ini.rub.de/"),
    ("KMNIST", TRAIN, "CC BY-SA 4.0", "https://github.com/rois-codh/kmnist"),
    ("MNIST", TRAIN, "CC BY-SA 3.0", "http://yann.lecun.com/exdb/mnist/"),
    ("OxfordIIITPet", TRAINVAL, "CC BY-SA 4.0", f"{VGG}/pets/"),
    ("QMNIST", TRAIN, "BSD-style", "https://github.com/facebookresearch/qmnist"),
    ("RenderedSST2", SPLIT, SEE, f"{CLIP}/rendered-sst2.md"),
    ("STL10", SPLIT, SEE, "https://cs.stanford.edu/~acoates/stl10/"),
    ("SVHN", SPLIT, "for non-commercial use only", "http://ufldl.stanford.edu/housenumbers/"),
    ("USPS", TRAIN, SEE, f"{LIBSVM}/multiclass.html#usps"),
)
HANDWRITING = ("EMNIST", "KMNIST", "MNIST", "QMNIST", "USPS")
TORCHVISION_DATASETS: Mapping[str, TorchvisionDataset] = {
    name: TorchvisionDataset(
        class_name := name.partition("-")[0], *splits, licence, source, class_name in HANDWRITING
    )
    for name, splits, licence, source in _ROWS
}

_CLASSES_BY_REASON = {
    "no train and test splits of its own": """
        Caltech101 Caltech256 EuroSAT INaturalist ImageNet Imagenette LSUN LSUNClass Omniglot
        Places365 SBU SEMEION SUN397 VOCDetection VOCSegmentation""",
    "labels that are not classes": """
        CREStereo CarlaStereo CelebA ETH3DStereo FallingThingsStereo FlyingChairs FlyingThings3D
        HD1K InStereo2k Kitti Kitti2012Stereo Kitti2015Stereo KittiFlow Middlebury2014Stereo
        MovingMNIST SBDataset SceneFlowStereo Sintel SintelStereo WIDERFace""",
    "no labels in the test split": "CLEVRClassification",
    "arguments needed beyond a name": """
        CocoCaptions CocoDetection Flickr30k Flickr8k HMDB51 Kinetics PhotoTour UCF101""",
    "download by hand only": "Cityscapes FER2013",
    "no longer available for download": "LFWPairs LFWPeople StanfordCars",
    "the package h5py needed": "PCAM",
    "noise instead of pictures": "FakeData",
    "reads any folder of pictures; give its path instead": "DatasetFolder ImageFolder",
    "base class of the others": "VisionDataset",
}
UNUSABLE: Mapping[str, str] = {  # class -> reason
    name: reason for reason, names in _CLASSES_BY_REASON.items() for name in names.split()
}


def similar_names(name: str) -> list[str]:
    """The names most like `name`, whatever its case: all that share one class, or none."""
    by_class: dict[str, list[str]] = {}
    for known, dataset in TORCHVISION_DATASETS.items():
        by_class.setdefault(dataset.class_name.lower(), []).append(known)
    close = difflib.get_close_matches(name[:99].lower().partition("-")[0], by_class, n=1)
    return by_class[close[0]] if close else []


def listing() -> str:
    """A table of the usable data sets, then the others by the reason why they are not."""
    rows = [("name", "licence", "source")]
    rows += [
        (name, dataset.licence, dataset.source) for name, dataset in TORCHVISION_DATASETS.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows]
    lines += ["", "Not usable, though torchvision has them:"]
    for reason, names in _CLASSES_BY_REASON.items():
        text = f"{reason}: {', '.join(names.split())}"
        lines.append(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)
