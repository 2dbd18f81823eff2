"""What torchvision.datasets offers: which of its data sets can be classified here, and why not.

What a class offers decides: labels, a train and a test split, a download by URL. Nothing is
downloaded to find out, but torchvision is imported, which takes seconds.
"""

import ast
import difflib
import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from stages.sources.torchvision_downloads import Published, downloading_with

Arguments = Mapping[str, str | bool]  # of a data set's class, for one of its splits

# What no signature tells.
UNFIT = {
    "CLEVRClassification": "its test split has no labels",
    "CelebA": "its labels are attributes, not classes",
    "DatasetFolder": "it reads a folder of yours: give its path",
    "FakeData": "its pictures are noise",
    "ImageFolder": "it reads a folder of yours: give its path",
    "Kitti": "its labels are boxes, not classes",
    "VisionDataset": "it is what the others are made from",
    "WIDERFace": "its labels are boxes, not classes",
}
TOLD_THERE = "see its source"
LICENCES = {
    "Country211": "Creative Commons, each picture its own",
    "DTD": "for research only",
    "FGVCAircraft": "for non-commercial research only",
    "FashionMNIST": "MIT",
    "KMNIST": "CC BY-SA 4.0",
    "MNIST": "CC BY-SA 3.0",
    "OxfordIIITPet": "CC BY-SA 4.0",
    "QMNIST": "BSD-style",
    "SVHN": "for non-commercial use only",
}
TRAIN, TEST = ("trainval", "train"), "test"  # the splits; the larger train split first


def class_names() -> list[str]:
    """The names that torchvision.datasets gives, sorted; read without importing it."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; `make install` installs it")
    source = Path(spec.origin).with_name("datasets") / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(name for name in ast.literal_eval(node.value) if name[0].isupper())
    raise ImportError(f"{source}: no __all__; expected a torchvision that pyproject.toml admits")


def is_name(name: str) -> bool:
    """Whether `name` is that of a class in torchvision.datasets, or begins so, up to a hyphen."""
    return name.partition("-")[0] in class_names()


def closest(name: str) -> str | None:
    """The name most like `name`, if any is like it."""
    names = {known.lower(): known for known in class_names()}
    close = difflib.get_close_matches(name.lower().partition("-")[0], names, n=1)
    return names[close[0]] if close else None


def published(name: str) -> Published:
    """The data set called `name`. Raises ValueError with the reason if it cannot be used."""
    base, _, choice = name.partition("-")
    choices = _choices(base)
    if choice not in choices:
        expected = ", ".join(f"{base}-{other}" for other in choices) if all(choices) else base
        raise ValueError(f"{name}: no such data set; expected {expected}")
    return choices[choice]


def table() -> str:
    """All data sets with licence and source, then those that cannot be used and why not."""
    from torchvision import datasets

    rows, reasons = [("name", "licence", "source")], []
    for name in class_names():
        try:
            choices = _choices(name)
        except ValueError as error:
            reasons.append(f"  {error}")
            continue
        source = re.search(r"https?://[^\s>]+", inspect.getdoc(getattr(datasets, name)) or "")
        rows.append(
            (
                f"{name}-{{{','.join(choices)}}}" if all(choices) else name,
                LICENCES.get(name, TOLD_THERE),
                source.group() if source else "not told by torchvision",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows]
    return "\n".join(
        [
            *lines,
            "",
            "torchvision has these too, and they cannot be used:",
            *reasons,
            "",
            "Or the path of a folder, zip or tar of pictures: a sub-folder a class, with or without"
            " train and test above.",
        ]
    )


def _choices(name: str) -> dict[str, Published]:
    """The data sets of one class by what there is to choose; "" where there is nothing.

    Raises ValueError with the reason if it has none that can be used.
    """
    from torchvision import datasets

    cls = getattr(datasets, name)
    try:
        if name in UNFIT:
            raise ValueError(UNFIT[name])
        splits = _splits(cls)
        _check_download(cls, next(iter(splits.values()))[0])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return {choice: Published(name, train, test) for choice, (train, test) in splits.items()}


def _splits(cls: type) -> dict[str, tuple[Arguments, Arguments]]:
    """What there is to choose -> the arguments of the train and of the test split."""
    parameters = dict(_parameters(cls))
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.name != "root"]
    if "train" in parameters and needed == ["split"]:
        return {
            value: ({"split": value, "train": True}, {"split": value, "train": False})
            for value in _values_of_split(cls)
        }
    if needed:
        raise ValueError(f"it needs more than a name: {', '.join(needed)}")
    if "target_transform" not in parameters:
        raise ValueError("its labels are not classes")
    if "train" in parameters:
        return {"": ({"train": True}, {"train": False})}
    values = _values_of_split(cls) if "split" in parameters else []
    if TEST not in values or not (train := [value for value in TRAIN if value in values]):
        its = f"; its splits: {', '.join(values)}" if values else ""
        raise ValueError(f"it has no train and test split of its own{its}")
    return {"": ({"split": train[0]}, {"split": TEST})}


def _values_of_split(cls: type) -> list[str]:
    """The values that a class takes for `split`, as it tells who gives it another."""
    download = {"download": False} if "download" in dict(_parameters(cls)) else {}
    with tempfile.TemporaryDirectory() as empty:
        try:
            cls(empty, split="no such split", **download)
        except ValueError as error:
            told = re.search(r"Valid values are \{(.*)\}", str(error))
            return re.findall(r"'([^']*)'", told.group(1)) if told else []
        except (OSError, RuntimeError) as error:
            raise ValueError(_sentence(error)) from None
    return []


class _Asked(Exception):
    """A data set's class has asked for a file."""


def _check_download(cls: type, arguments: Arguments) -> None:
    """Check that the class would download a file if it could."""
    if "download" not in dict(_parameters(cls)):
        raise ValueError("it must be downloaded by hand")

    def ask(*_: object, **__: object) -> NoReturn:
        raise _Asked

    with tempfile.TemporaryDirectory() as empty, downloading_with(ask):
        try:
            cls(empty, download=True, **arguments)
        except _Asked:
            return
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(_sentence(error)) from None
    raise ValueError("it downloads nothing")


def _sentence(error: Exception) -> str:
    """The first sentence of what went wrong."""
    return re.split(r"\.(?=[A-Z\s]|$)", str(error))[0]


def _parameters(cls: type) -> Iterator[tuple[str, inspect.Parameter]]:
    """The parameters of a class's constructor, and where it passes **kwargs on, of its base's."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in seen:
                seen.add(parameter.name)
                yield parameter.name, parameter
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
            return
