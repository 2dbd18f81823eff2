import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from stages.formats.idx import idx_bytes
from stages.formats.split_file import LabelledImages
from stages.tensorize import TensorizeParams, tensorize
from tests.conftest import ROOT

PARAMS: dict[str, Any] = {
    "channels": 1,
    "size": None,
    "fit": "crop",
    "test": 0.25,
    "validation": 2,
    "seed": 0,
    "skip_broken": False,
    "allow_duplicates": False,
}
OUTS = ("train", "validation", "test")


def load(folder: Path, **changes: Any) -> TensorizeParams:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"tensorize": PARAMS | changes}))
    return TensorizeParams.load(path, "tensorize")


def run(raw: Path, out: Path, **changes: Any) -> dict[str, LabelledImages]:
    """Tensorize `raw` into the folder `out`."""
    train, validation, test = (out / name for name in OUTS)
    tensorize(load(raw.parent, **changes), raw, train, validation, test, out / "skipped.csv")
    return {name: LabelledImages.load(out / name) for name in OUTS}


def command(raw: Path, out: Path, **options: Any) -> "subprocess.Popen[str]":
    arguments = [f"--{name}={out / name}" for name in OUTS]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "stages.tensorize", f"--params={raw.parent / 'params.yaml'}"),
            *(f"--raw={raw}", *arguments, f"--skipped={out / 'skipped.csv'}"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def picture(path: Path, value: int, size: tuple[int, int] = (3, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, "PNG")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """12 cats, 8 dogs, each of a grey of its own, without a test split."""
    raw = tmp_path / "raw"
    for value in range(20):
        picture(raw / "train" / ("cat" if value < 12 else "dog") / f"{value:02}.png", value)
    (raw / "dataset.json").write_text('{"format": "pictures"}')
    return raw


def values(images: LabelledImages) -> list[int]:
    return [int(image[0, 0, 0]) for image in images.images]


def name_of(value: int) -> str:
    return f"train/{'cat' if value < 12 else 'dog'}/{value:02}.png"


def test_a_folder_becomes_three_splits(raw: Path, tmp_path: Path) -> None:
    splits = run(raw, tmp_path / "out")
    assert [len(splits[name]) for name in OUTS] == [13, 2, 5]
    for split in splits.values():
        assert split.classes == ("cat", "dog")
        assert split.image_shape == (1, 2, 3)
        assert values(split) == sorted(values(split))
        assert split.labels.tolist() == [int(value >= 12) for value in values(split)]
        assert split.pictures == [name_of(value) for value in values(split)]
    assert sorted(value for split in splits.values() for value in values(split)) == list(range(20))
    assert splits["test"].labels.tolist() == [0, 0, 0, 1, 1]
    assert (tmp_path / "out" / "skipped.csv").read_text() == "picture,reason\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*OUTS, "skipped.csv"}


def test_a_test_split_of_its_own_is_kept(raw: Path, tmp_path: Path) -> None:
    for value, name in ((30, "cat"), (40, "dog")):
        picture(raw / "test" / name / "1.png", value)
    splits = run(raw, tmp_path / "out", validation=0.1)
    assert [len(splits[name]) for name in OUTS] == [18, 2, 2]
    assert values(splits["test"]) == [30, 40]
    assert splits["test"].pictures == ["test/cat/1.png", "test/dog/1.png"]


def test_a_new_picture_leaves_the_others_where_they_are(raw: Path, tmp_path: Path) -> None:
    before = run(raw, tmp_path / "before", validation=0.25)
    for value in range(100, 110):
        new = f"train/cat/{value}.png"
        picture(raw / new, value)
        after = run(raw, tmp_path / "after", validation=0.25)
        for name in OUTS:
            moved = {*before[name].pictures} ^ {*after[name].pictures}
            assert all(picture.startswith("train/cat/") for picture in moved)
            assert name != "test" or len(moved - {new}) <= 1
        (raw / new).unlink()


def test_there_need_be_no_validation_images(raw: Path, tmp_path: Path) -> None:
    assert len(run(raw, tmp_path / "out", validation=0)["validation"]) == 0


def test_names_are_kept_as_they_are(raw: Path, tmp_path: Path) -> None:
    name = 'train/dog/\u2028 猫, "\u2029.png'
    (raw / name_of(13)).rename(raw / name)
    (raw / "train" / "dog" / "\u2028.png").touch()
    splits = run(raw, tmp_path / "out", skip_broken=True)
    found = {
        value: name
        for split in splits.values()
        for value, name in zip(values(split), split.pictures, strict=True)
    }
    assert found == {value: name_of(value) for value in range(20)} | {13: name}
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1][0] == "train/dog/\u2028.png"


@pytest.mark.parametrize("key", ["test", "seed"])
def test_a_param_decides_the_test_images(raw: Path, tmp_path: Path, key: str) -> None:
    value = {"test": 0.5, "seed": 1}[key]
    one, other = (
        run(raw, tmp_path / "one"),
        run(raw, tmp_path / "other", **{key: value}),
    )
    assert values(one["test"]) != values(other["test"])
    assert len(other["test"]) == {"test": 10, "seed": 5}[key]


def test_idx_files_become_what_they_hold(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset.json").write_text('{"format": "idx", "classes": ["a", "b"]}')
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4), np.uint8)
    labels = np.arange(20).astype(np.uint8) % 2
    for split, part in (("train", slice(0, 15)), ("t10k", slice(15, 20))):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images[part]))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[part]))
    splits = run(raw, tmp_path / "out")
    np.testing.assert_array_equal(splits["test"].images[:, 0].numpy(), images[15:])
    assert splits["test"].labels.tolist() == labels[15:].tolist()
    assert splits["test"].pictures == [f"test/{i}" for i in range(5)]
    for name in OUTS[:2]:
        numbers = [int(picture.removeprefix("train/")) for picture in splits[name].pictures]
        np.testing.assert_array_equal(splits[name].images[:, 0].numpy(), images[numbers])
    both = np.concatenate([splits[name].images[:, 0].numpy() for name in OUTS[:2]])
    assert sorted(map(bytes, both)) == sorted(map(bytes, images[:15]))
    colour = run(raw, tmp_path / "colour", channels=3, size=[5, 4])
    for name in OUTS:
        for channel in range(3):
            assert (colour[name].images[:, channel] == splits[name].images[:, 0]).all()


def break_two(raw: Path) -> None:
    (raw / "train" / "cat" / "05.png").write_bytes(b"no picture")
    whole = (raw / "train" / "dog" / "15.png").read_bytes()
    (raw / "train" / "dog" / "15.png").write_bytes(whole[:-25])


def test_broken_pictures_stop_it_and_are_told_at_once(raw: Path, tmp_path: Path) -> None:
    break_two(raw)
    for name in ("cat", "dog"):
        picture(raw / "test" / name / "1.png", 30)
        (raw / "test" / name / "2.png").touch()
    message = (
        r"4 of the pictures cannot be read: train/cat/05.png \(none of .*\),"
        r" train/dog/15.png \(.*\), test/cat/2.png \(an empty file\); mend or remove them"
    )
    with pytest.raises(ValueError, match=f"^{message}.* set tensorize.skip_broken to true"):
        run(raw, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_or_is_left_out_and_listed(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_two(raw)
    splits = run(raw, tmp_path / "out", skip_broken=True)
    kept = {value for split in splits.values() for value in values(split)}
    assert kept == set(range(20)) - {5, 15}
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["picture", "reason"]
    assert [row[0] for row in rows] == ["train/cat/05.png", "train/dog/15.png"]
    assert rows[0][1].startswith("none of the formats")
    skipped = tmp_path / "out" / "skipped.csv"
    assert f"2 pictures that cannot be read are left out; {skipped}" in capsys.readouterr().out


def test_sizes_that_differ_need_a_size(raw: Path, tmp_path: Path) -> None:
    picture(raw / "train" / "dog" / "99.png", 99, size=(4, 2))
    with pytest.raises(ValueError, match=r"^train/dog/99.png: 2 x 4 pixels.*set tensorize.size"):
        run(raw, tmp_path / "out")
    assert run(raw, tmp_path / "out", size=5)["train"].image_shape == (1, 5, 5)


def test_sizes_that_differ_between_the_splits_need_a_size_too(raw: Path, tmp_path: Path) -> None:
    for value, name in ((30, "cat"), (40, "dog")):
        picture(raw / "test" / name / "1.png", value, size=(2, 2))
    with pytest.raises(ValueError, match="training images are 1 x 2 x 3, test images 1 x 2 x 2"):
        run(raw, tmp_path / "out")
    run(raw, tmp_path / "out", size=[2, 2])


def test_how_pictures_fit_is_kept_for_new_pictures(raw: Path, tmp_path: Path) -> None:
    splits = run(raw, tmp_path / "out", fit="pad", size=3, channels=3)
    assert {split.fit for split in splits.values()} == {"pad"}
    assert splits["train"].image_shape == (3, 3, 3)
    assert not splits["train"].images[:, :, 2].any()  # 3 x 2 pixels lie above a row of black


def test_a_test_image_that_is_trained_on_is_an_error_unless_allowed(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(raw / "test" / "cat" / "1.png", 30)
    picture(raw / "test" / "dog" / "7.png", 7)
    message = (
        "1 of 2 test images are training images too, such as test/dog/7.png (as train/cat/07.png)"
    )
    check_allowed(raw, tmp_path / "out", message, capsys)


def test_so_is_a_picture_that_is_there_twice_before_it_is_split(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(raw / "train" / "dog" / "99.png", 7)
    message = (
        "1 of 21 pictures are there again, to be trained on and tested on, such as"
        " train/dog/99.png (as train/cat/07.png)"
    )
    check_allowed(raw, tmp_path / "out", message, capsys)


def check_allowed(raw: Path, out: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = re.escape(f"{message}; remove them, or set tensorize.allow_duplicates")
    with pytest.raises(ValueError, match=f"^{expected}"):
        run(raw, out)
    assert not list(out.iterdir())
    run(raw, out, allow_duplicates=True)
    assert f"{message}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("train/dog", "one class only, 'cat'"),
        ("train/dog/*", "class 'dog': 0 images to train on and 0 to test on"),
        ("train/*/*", "train: no picture that can be read"),
        ("train/dog/*[!9].png", "class 'dog': 1 images to train on and 0 to test on"),
    ],
)
def test_classes_that_cannot_be_learned_are_told(
    raw: Path, tmp_path: Path, remove: str, message: str
) -> None:
    for path in raw.glob(remove):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    with pytest.raises(ValueError, match=f"^{message}"):
        run(raw, tmp_path / "out")


def test_a_class_of_one_split_only_is_told(raw: Path, tmp_path: Path) -> None:
    for value, name in ((30, "cat"), (40, "dog"), (50, "owl")):
        picture(raw / "test" / name / "1.png", value)
    with pytest.raises(ValueError, match="class 'owl': 0 images to train on and 1 to test on"):
        run(raw, tmp_path / "out")
    shutil.rmtree(raw / "test" / "owl")
    shutil.rmtree(raw / "test" / "dog")
    with pytest.raises(ValueError, match="class 'dog': 8 images to train on and 0 to test on"):
        run(raw, tmp_path / "out")


def test_a_test_split_without_a_picture_is_told(raw: Path, tmp_path: Path) -> None:
    (raw / "test" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"^test: no picture that can be read"):
        run(raw, tmp_path / "out")


@pytest.fixture
def with_test(raw: Path) -> Path:
    """The same with a test split of its own, so that 12 cats and 8 dogs are to train on."""
    for value, name in ((30, "cat"), (40, "dog")):
        picture(raw / "test" / name / "1.png", value)
    return raw


@pytest.mark.parametrize(
    ("share", "cats", "dogs"), [(0.5, 6, 4), (0.26, 3, 2), (0.024, 1, 1), (0.97, 11, 7)]
)
def test_validation_below_one_is_a_share_of_each_class(
    with_test: Path, tmp_path: Path, share: float, cats: int, dogs: int
) -> None:
    splits = run(with_test, tmp_path / "out", validation=share)
    assert np.bincount(splits["validation"].labels).tolist() == [cats, dogs]
    assert np.bincount(splits["train"].labels).tolist() == [12 - cats, 8 - dogs]


@pytest.mark.parametrize("number", [1, 7, 17])
def test_or_a_count_drawn_from_all_of_them(with_test: Path, tmp_path: Path, number: int) -> None:
    found = values(run(with_test, tmp_path / "out", validation=number, seed=3)["validation"])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    assert found == sorted(order[:number].tolist())


@pytest.mark.parametrize("validation", [0.5, 10])
def test_the_seed_decides_the_validation_images(
    with_test: Path, tmp_path: Path, validation: float
) -> None:
    one, other = (
        values(run(with_test, tmp_path / "out", validation=validation, seed=seed)["validation"])
        for seed in (0, 1)
    )
    assert one != other
    assert len(one) == len(other) == 10


@pytest.mark.parametrize("validation", [20, 21])
def test_something_must_be_left_to_train_on(
    with_test: Path, tmp_path: Path, validation: int
) -> None:
    message = rf"^tensorize.validation: found {validation}; expected less than 20"
    with pytest.raises(ValueError, match=message):
        run(with_test, tmp_path / "out", validation=validation)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size", "32", (32, 32)),
        ("size", 32.0, (32, 32)),
        ("size", [24, 32], (24, 32)),
        ("size", ["24", 32], (24, 32)),
        ("size", 10_000, (10_000, 10_000)),
        ("size", None, None),
        ("channels", "3", 3),
        ("channels", 1.0, 1),
        ("validation", "1e3", 1000.0),
        ("validation", "0.1", 0.1),
        ("test", "2e-1", 0.2),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("fit", "pad", "pad"),
    ],
)
def test_a_param_is_read_as_what_it_means(
    tmp_path: Path, key: str, value: Any, expected: Any
) -> None:
    found = getattr(load(tmp_path, **{key: value}), key)
    assert found == expected
    assert type(found) is type(expected)


WRONG: dict[str, list[Any]] = {
    "channels": [2, 0, True, "grey", None, [1], 1.5],
    "size": [0, -1, 10_001, 2.5, True, "big", "[24, 32]", [], [1], [1, 2, 3], [0, 1], [1, None]],
    "fit": ["stretch", None, 1],
    "test": [0, 1, -0.1, 1.5, "some", None, True, float("nan")],
    "validation": [-1, 1.5, "all", None, True, float("inf"), float("nan")],
    "seed": [-1, 2**63, 0.5, None, True, "x"],
    "skip_broken": [0, 1, "yes", None, "true"],
    "allow_duplicates": [0, "no", None],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_param_out_of_range_is_told(tmp_path: Path, key: str) -> None:
    for value in WRONG[key]:
        with pytest.raises(ValueError, match=rf"params.yaml: tensorize\.{key}.*expected") as error:
            load(tmp_path, **{key: value})
        assert str(error.value).count("tensorize.") == 1


def test_every_wrong_param_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tensorize") as error:
        load(tmp_path, **{key: values[0] for key, values in WRONG.items()}, sise=1)
    for key in (*WRONG, "sise"):
        assert f"tensorize.{key}: " in str(error.value)
    assert "\n" not in str(error.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_the_same_bytes_anywhere_and_twice_at_once(tmp_path: Path) -> None:
    raw, elsewhere = tmp_path / "图片 of mine" / "raw", tmp_path / "elsewhere"
    noise = np.random.default_rng(0).integers(0, 256, (40, 9, 7, 3), np.uint8)
    for i, pixels in enumerate(noise):
        path = raw / "train" / ("猫 cat", "狗")[i % 2] / f"图 {i}.{('png', 'webp', 'gif')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, lossless=True)
    (raw / "train" / "狗" / "坏.png").touch()
    (raw / "dataset.json").write_text('{"format": "pictures"}')
    elsewhere.mkdir()
    load(raw.parent, channels=3, size=8, skip_broken=True)
    shutil.copytree(raw, elsewhere / "raw")
    shutil.copy(raw.parent / "params.yaml", elsewhere)

    out = tmp_path / "out of it"
    for process in [command(raw, out), command(Path("raw"), out, cwd=elsewhere)]:
        text, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        assert re.search(r"train: 41 pictures, \d+ a second\n", text)
        assert "train 28, validation 2, test 10 images of 3 x 8 x 8, 2 classes\n" in text
    run(raw, tmp_path / "alone", channels=3, size=8, skip_broken=True)
    assert contents(out) == contents(tmp_path / "alone")
    assert set(contents(out)) == {*OUTS, "skipped.csv"}
    assert LabelledImages.load(out / "train").classes == ("狗", "猫 cat")
    skipped = (out / "skipped.csv").read_text(encoding="utf-8")
    assert skipped == "picture,reason\ntrain/狗/坏.png,an empty file\n"


def test_an_error_of_the_command_is_a_line_and_touches_nothing(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"tensorize": PARAMS | {"size": 0}}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "train").write_bytes(b"old")
    process = command(raw, out)
    text, err = process.communicate()
    assert (process.returncode, text) == (2, "")
    assert re.fullmatch(
        r"error: .*params\.yaml: tensorize\.size: found 0; expected pixels.*\n", err
    )
    assert contents(out) == {"train": b"old"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_half_way_it_leaves_nothing(
    raw: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    load(tmp_path, size=10_000)  # takes long
    process = command(raw, tmp_path / "out")
    end = time.monotonic() + 20
    while not (tmp_path / "out").exists() and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in err
    assert not list((tmp_path / "out").iterdir())
