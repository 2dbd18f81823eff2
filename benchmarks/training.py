"""One row of the comparison of training loops: `python -m benchmarks.training ROW` prints it.

Every row trains on MNIST's 60,000 training images and is measured on its 10,000 test images. Its
seconds are those between `start` and `stop`: scaling the pixels, building the model, training it,
and the passes over the test images, but neither imports nor reading files. Each row imports only
what it needs, and runs in a process of its own.
"""

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.memory import peak_megabytes

RAW = Path("data/raw")
# The tutorial's settings, in terms of params.yaml.
TUTORIAL = {
    "optimizer": "sgd",
    "learning_rate": 0.001,
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_size": 100,
    "iterations": 3000,
    "eval_every": 500,
}


@dataclass(frozen=True)
class Measured:
    """What a row took, and the accuracy it reached.

    accuracy: on the test images.  megabytes: peak memory above that after the row's imports.
    """

    seconds: float
    accuracy: float
    megabytes: float


class Watch:
    """Measures a row, which reports where it is."""

    def imported(self) -> None:
        """The row's imports are done."""
        self.imports = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF))

    def start(self) -> None:
        """The data is in memory, as it is in the files."""
        self.started = perf_counter()

    def stop(self, accuracy: float) -> Measured:
        """The model is trained and measured."""
        seconds = perf_counter() - self.started
        peak = peak_megabytes(resource.getrusage(resource.RUSAGE_SELF))
        return Measured(seconds, accuracy, peak - self.imports)


def ours(watch: Watch, changes: dict[str, Any], features: str) -> Measured:
    """Our `fit` and `History`, with the params of params.yaml except for `changes`.

    The features, `pixels` or `gradients` of deskewed images, are computed before the clock starts.

    The test images take the place of the validation split, so that both loops make the same passes
    over them.
    """
    import torch

    from benchmarks import mnist
    from stages.formats.input_spec import InputSpec
    from stages.images.inputs import compute_features
    from stages.training.data import Examples
    from stages.training.history import History
    from stages.training.loop import fit
    from stages.training.processes import use_threads
    from stages.training.settings import TrainParams

    watch.imported()
    params = TrainParams.load(Path("params.yaml"), "train").model_copy(update=changes)
    spec = InputSpec(1, 28, 28, features=features, deskew=features == "gradients")
    training, test = (
        Examples(torch.from_numpy(compute_features(images, spec)), torch.from_numpy(labels))
        for images, labels in map(mnist.read, ("train", "t10k"))
    )
    watch.start()
    use_threads(params.batch_size * training.features.shape[1] * mnist.CLASSES)
    history = History(params, test)
    for step in fit(params, training, mnist.CLASSES):
        history.add(step)
    return watch.stop(history.rows[-1].validation_accuracy or 0.0)


def tutorial(watch: Watch) -> Measured:
    """The tutorial's loop: a DataLoader of transformed images, autograd, all in float32."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    watch.imported()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        Path(root, "MNIST").mkdir()
        Path(root, "MNIST", "raw").symlink_to(RAW.resolve())  # where torchvision looks
        training = MNIST(root, train=True, transform=ToTensor())
        test = MNIST(root, train=False, transform=ToTensor())
    watch.start()
    training_batches = DataLoader(training, batch_size=100, shuffle=True)
    test_batches = DataLoader(test, batch_size=100, shuffle=False)
    model = nn.Linear(28 * 28, 10)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    iteration, correct = 0, 0
    for _ in range(5):  # epochs of 600 iterations
        for images, labels in training_batches:
            optimizer.zero_grad()
            loss = criterion(model(images.view(-1, 28 * 28)), labels)
            loss.backward()
            optimizer.step()
            iteration += 1
            if iteration % 500 == 0:
                correct = 0
                with torch.no_grad():
                    for test_images, test_labels in test_batches:
                        predicted = model(test_images.view(-1, 28 * 28)).argmax(1)
                        correct += int((predicted == test_labels).sum())
    return watch.stop(correct / len(test))


def scikit_learn(watch: Watch, estimator: str, **arguments: Any) -> Measured:
    """An estimator of scikit-learn on float32 pixels."""
    import numpy as np
    from sklearn import linear_model

    from benchmarks import mnist

    watch.imported()
    (images, labels), (test_images, test_labels) = mnist.read("train"), mnist.read("t10k")
    watch.start()
    x, x_test = (
        split.reshape(len(split), -1).astype(np.float32) / np.float32(255)
        for split in (images, test_images)
    )
    model = getattr(linear_model, estimator)(**arguments).fit(x, labels)
    return watch.stop(model.score(x_test, test_labels))


@dataclass(frozen=True)
class Row:
    """A row's title in the table, the number of its repetitions, and what it runs."""

    title: str
    repetitions: int
    measure: Callable[[Watch], Measured]


ROWS = {
    "ours": Row("ours, pixels, the tutorial's settings", 3, lambda w: ours(w, TUTORIAL, "pixels")),
    "pixels": Row("ours, pixels, the settings of params.yaml", 3, lambda w: ours(w, {}, "pixels")),
    "default": Row(
        "ours, gradients, the settings of params.yaml", 3, lambda w: ours(w, {}, "gradients")
    ),
    "tutorial": Row("the tutorial: torchvision, DataLoader, autograd", 3, tutorial),
    "logistic": Row(
        "scikit-learn LogisticRegression(max_iter=1000)",
        1,
        lambda watch: scikit_learn(watch, "LogisticRegression", max_iter=1000),
    ),
    "sgd": Row(
        "scikit-learn SGDClassifier(loss='log_loss')",
        1,
        lambda watch: scikit_learn(watch, "SGDClassifier", loss="log_loss", random_state=0),
    ),
}


if __name__ == "__main__":
    print(json.dumps(asdict(ROWS[sys.argv[1]].measure(Watch()))))
