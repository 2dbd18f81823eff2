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
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.base.process_group import ProcessGroup
from stages.formats.idx import idx_bytes
from stages.formats.input_spec import InputSpec
from stages.formats.split_file import Images, Split
from stages.images.augmentation import moved, moves_by
from stages.images.features import deskew, gradient_features
from stages.images.splits import choose, name_hashes
from stages.tensorize import TensorizeParams, main, tensorize
from tests.conftest import ROOT
from tests.groups import forks, in_processes

PARAMS: dict[str, Any] = {
    "channels": 1,
    "size": None,
    "fit": "crop",
    "features": "pixels",
    "deskew": False,
    "shift": 0,
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


def run(raw: Path, out: Path, **changes: Any) -> dict[str, Split]:
    """Tensorize `raw` into the folder `out`."""
    train, validation, test = (out / name for name in OUTS)
    tensorize(load(raw.parent, **changes), raw, train, validation, test, out / "skipped.csv")
    return {name: Split.load(out / name) for name in OUTS}


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
    """12 cats and 8 dogs, each of its own grey level, without a test split."""
    raw = tmp_path / "raw"
    for value in range(20):
        picture(raw / "train" / ("cat" if value < 12 else "dog") / f"{value:02}.png", value)
    (raw / "dataset.json").write_text('{"format": "pictures"}')
    return raw


@pytest.fixture
def with_test(raw: Path) -> Path:
    """The same with a test split of its own, which leaves 12 cats and 8 dogs to train on."""
    for value, name in ((30, "cat"), (40, "dog")):
        picture(raw / "test" / name / "1.png", value)
    return raw


def values(images: Split) -> list[int]:
    return [int(image[0, 0, 0]) for image in images.images]


def names(split: Split) -> list[str]:
    """The names in a split, without the numbers that stand for missing ones."""
    return split.pictures if len(split.names) else []


def name_of(value: int) -> str:
    return f"train/{'cat' if value < 12 else 'dog'}/{value:02}.png"


def test_a_folder_of_pictures_becomes_three_splits(raw: Path, tmp_path: Path) -> None:
    splits = run(raw, tmp_path / "out")
    for split in splits.values():
        assert split.classes == ("cat", "dog")
        assert split.spec.image_shape == (1, 2, 3)
        assert values(split) == sorted(values(split))
        assert split.labels.tolist() == [int(value >= 12) for value in values(split)]
    assert sorted(value for split in splits.values() for value in values(split)) == list(range(20))
    assert names(splits["test"]) == [name_of(value) for value in values(splits["test"])]
    assert names(splits["train"]) == names(splits["validation"]) == []
    assert (tmp_path / "out" / "skipped.csv").read_text() == "picture,reason\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*OUTS, "skipped.csv"}


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("test", "validation"), [(0.25, 2), (0.5, 0.25), (0.1, 0)])
def test_the_choice_of_test_and_validation_images_depends_on_params_alone(
    raw: Path, tmp_path: Path, seed: int, test: float, validation: float
) -> None:
    splits = run(raw, tmp_path / "out", seed=seed, test=test, validation=validation)
    left, held_out = list(range(20)), {}
    for split, amount in (("test", test), ("validation", validation)):
        labels = np.array([value >= 12 for value in left])
        hashes = name_hashes([name_of(value) for value in left], f"{split} {seed}")
        chosen = choose(labels, hashes, amount)
        held_out[split] = [left[i] for i in chosen]
        left = [value for value in left if value not in held_out[split]]
    assert {name: values(split) for name, split in splits.items()} == held_out | {"train": left}


def test_a_test_split_of_the_data_set_is_kept(with_test: Path, tmp_path: Path) -> None:
    splits = run(with_test, tmp_path / "out", validation=0.1)
    assert [len(splits[name]) for name in OUTS] == [18, 2, 2]
    assert values(splits["test"]) == [30, 40]
    assert splits["test"].pictures == ["test/cat/1.png", "test/dog/1.png"]


def test_names_are_kept_with_any_characters(raw: Path, tmp_path: Path) -> None:
    ends = {value: f'\u2028 猫, "{value}\u2029.png' for value in range(12, 20)}
    for value, end in ends.items():
        (raw / name_of(value)).rename(raw / "train" / "dog" / end)
    (raw / "train" / "dog" / "\u2028.png").touch()
    test = run(raw, tmp_path / "out", skip_broken=True)["test"]
    assert {value for value in values(test) if value >= 12}
    assert names(test) == [
        f"train/dog/{ends[value]}" if value in ends else name_of(value) for value in values(test)
    ]
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1][0] == "train/dog/\u2028.png"


def test_idx_files_keep_their_pixels_and_labels(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "dataset.json").write_text('{"format": "idx", "classes": ["a", "b"]}')
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4), np.uint8)
    labels = np.arange(20).astype(np.uint8) % 2
    for split, part in (("train", slice(0, 15)), ("t10k", slice(15, 20))):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images[part]))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[part]))
    splits = run(raw, tmp_path / "out")
    np.testing.assert_array_equal(splits["test"].images[:, 0], images[15:])
    assert splits["test"].labels.tolist() == labels[15:].tolist()
    assert splits["test"].pictures == [f"test/{i}" for i in range(5)]
    number_of = {image.tobytes(): i for i, image in enumerate(images)}
    for name in OUTS[:2]:
        numbers = [number_of[image.tobytes()] for image in splits[name].images]
        assert numbers == sorted(numbers)
        assert splits[name].labels.tolist() == labels[numbers].tolist()
    both = np.concatenate([splits[name].images[:, 0] for name in OUTS[:2]])
    assert sorted(map(bytes, both)) == sorted(map(bytes, images[:15]))
    colour = run(raw, tmp_path / "colour", channels=3, size=[5, 4])
    for name in OUTS:
        for channel in range(3):
            assert (colour[name].images[:, channel] == splits[name].images[:, 0]).all()


def auto(raw: Path, out: Path) -> tuple[dict[str, Split], dict[str, Any]]:
    """The splits where all that can be is decided from the data, and what was decided."""
    splits = run(raw, out, **dict.fromkeys(("channels", "size", "validation", "deskew"), "auto"))
    found = dict(splits["test"].origin.params)
    assert found.keys() == PARAMS.keys()
    return splits, found


def test_auto_decides_from_the_pictures_and_records_and_prints_it(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, found = auto(raw, tmp_path / "grey")
    assert {split.spec for split in splits.values()} == {InputSpec(1, 2, 3)}
    assert (found["channels"], found["size"], found["deskew"], found["validation"]) == (
        *(1, [2, 3]),
        *(False, 0),
    )
    printed = "auto: channels 1, size [2, 3], deskew false, validation 0\n"
    assert printed in capsys.readouterr().out

    for value in range(300):
        red = Image.new("RGB", (60, 50 + value % 3), (value % 250, value // 250, 99))
        red.save(raw / "train" / "cat" / f"more {value}.png")
    splits, found = auto(raw, tmp_path / "colour")
    assert {split.spec.image_shape for split in splits.values()} == {(3, 48, 48)}
    assert (found["channels"], found["size"], found["validation"]) == (3, [48, 48], 0.1)
    assert [len(splits[name]) for name in OUTS] == [216, 24, 80]


def test_auto_gives_the_same_files_as_the_values_that_it_decides(raw: Path, tmp_path: Path) -> None:
    auto(raw, tmp_path / "auto")
    values = {"channels": 1, "size": [2, 3], "validation": 0.0, "deskew": False}
    run(raw, tmp_path / "set", **values)
    assert contents(tmp_path / "auto") == contents(tmp_path / "set")


def test_auto_deskews_data_sets_that_are_described_as_handwriting(
    raw: Path, tmp_path: Path
) -> None:
    (raw / "dataset.json").write_text('{"format": "pictures", "handwriting": true}')
    splits, found = auto(raw, tmp_path / "out")
    assert found["deskew"] is True
    assert splits["train"].spec.deskew


def test_a_test_picture_of_another_size_is_resized_by_auto(with_test: Path, tmp_path: Path) -> None:
    picture(with_test / "test" / "cat" / "large.png", 90, (30, 20))
    splits, _ = auto(with_test, tmp_path / "out")
    assert values(splits["test"]) == [30, 90, 40]


def test_the_users_folder_names_pictures_but_does_not_choose_them(
    raw: Path, tmp_path: Path
) -> None:
    before = run(raw, tmp_path / "before")
    (raw / "train/cat/x.png").touch()
    description = {"format": "pictures", "folders": {"train": "pictures/my {animals}"}}
    (raw / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"such as pictures/my \{animals\}/cat/x\.png \(an empty"):
        run(raw, tmp_path / "after")
    after = run(raw, tmp_path / "after", skip_broken=True)
    assert [values(split) for split in after.values()] == [values(s) for s in before.values()]
    renamed = [
        name.replace("train/", "pictures/my {animals}/", 1) for name in names(before["test"])
    ]
    assert names(after["test"]) == renamed
    assert "\npictures/my {animals}/cat/x.png," in (tmp_path / "after/skipped.csv").read_text()


def test_unreadable_pictures_are_an_error_or_are_left_out_and_listed(
    with_test: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = with_test, tmp_path / "out"
    (raw / "train" / "cat" / "05.png").write_bytes(b"no picture")
    whole = (raw / "train" / "dog" / "15.png").read_bytes()
    (raw / "train" / "dog" / "15.png").write_bytes(whole[:-25])
    for name in ("cat", "dog"):
        (raw / "test" / name / "2.png").touch()
    message = (
        r"unreadable pictures: found 4, such as train/cat/05.png \(none of .*\),"
        r" train/dog/15.png \(.*\), test/cat/2.png \(an empty file\); fix or remove them, or set"
    )
    with pytest.raises(ValueError, match=f"^{message} tensorize.skip_broken to true"):
        run(raw, out)
    assert not list(out.iterdir())

    splits = run(raw, out, skip_broken=True)
    kept = {value for split in splits.values() for value in values(split)}
    assert kept == {*range(20), 30, 40} - {5, 15}
    with (out / "skipped.csv").open(encoding="utf-8", newline="") as file:
        (header, *rows) = csv.reader(file)
    assert header == ["picture", "reason"]
    pictures = ["train/cat/05.png", "train/dog/15.png", "test/cat/2.png", "test/dog/2.png"]
    assert [row[0] for row in rows] == pictures
    assert rows[0][1].startswith("none of the formats")
    printed = f"unreadable pictures left out: 4, listed in {out / 'skipped.csv'}\n"
    assert printed in capsys.readouterr().out


def test_fit_and_channels_are_applied_and_recorded(raw: Path, tmp_path: Path) -> None:
    splits = run(raw, tmp_path / "out", fit="pad", size=3, channels=3)
    assert {split.spec.fit for split in splits.values()} == {"pad"}
    assert splits["train"].spec.image_shape == (3, 3, 3)
    assert not splits["train"].images[:, :, 2].any()  # 3 x 2 pixels lie above a row of black


@pytest.mark.parametrize(
    ("duplicate", "message"),
    [
        ("test/cat/1.png", "1 of 2 test images are also training images"),
        ("train/cat/99.png", "1 of 21 images are duplicates, which could land in both"),
    ],
)
def test_duplicates_are_an_error_unless_allowed(
    raw: Path, tmp_path: Path, duplicate: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(raw / duplicate, 7)
    if duplicate.startswith("test"):
        picture(raw / "test" / "dog" / "1.png", 30)
    with pytest.raises(ValueError, match=rf"^{message}.*{duplicate} \(same as {name_of(7)}\)"):
        run(raw, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    run(raw, tmp_path / "out", allow_duplicates=True)
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("remove", "sizes", "params", "message"),
    [
        ("*/dog", {}, {}, "found one class, 'cat'"),
        ("train/dog", {}, {}, "class 'dog': found 0 training and 1 test images"),
        ("test/dog", {}, {}, "class 'dog': found 8 training and 0 test images"),
        ("train/*/*", {}, {}, "train: found no readable picture"),
        ("test/*/*", {}, {}, "test: found no readable picture"),
        ("", {"train/dog/99.png": (4, 2)}, {}, "train/dog/99.png: found 2 x 4 pixels"),
        ("test/*/*", {"test/cat/9.png": (2, 2)}, {}, "found test images of 1 x 2 x 2 pixels"),
        ("", {}, {"validation": 20}, "tensorize.validation: found 20; expected less than 20"),
    ],
)
def test_unusable_pictures_are_an_error_before_anything_is_written(
    with_test: Path,
    tmp_path: Path,
    remove: str,
    sizes: dict[str, tuple[int, int]],
    params: dict[str, Any],
    message: str,
) -> None:
    for path in with_test.glob(remove) if remove else ():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, size in sizes.items():
        picture(with_test / name, 99, size)
    with pytest.raises(ValueError, match=f"^{message}"):
        run(with_test, tmp_path / "out", **params)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size", "32", (32, 32)),
        ("size", 32.0, (32, 32)),
        ("size", [24, 32], (24, 32)),
        ("size", ["24", 32], (24, 32)),
        ("size", 10_000, (10_000, 10_000)),
        ("size", None, None),
        *((key, "auto", "auto") for key in ("channels", "size", "validation", "deskew")),
        ("channels", "3", 3),
        ("channels", 1.0, 1),
        ("validation", "1e3", 1000.0),
        ("validation", "0.1", 0.1),
        ("test", "2e-1", 0.2),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("fit", "pad", "pad"),
        ("features", "gradients", "gradients"),
        ("deskew", True, True),
    ],
)
def test_params_accept_equivalent_spellings(
    tmp_path: Path, key: str, value: Any, expected: Any
) -> None:
    found = getattr(load(tmp_path, **{key: value}), key)
    assert found == expected
    assert type(found) is type(expected)


WRONG: dict[str, list[Any]] = {
    "channels": [2, 0, True, "grey", None, [1], 1.5],
    "size": [0, -1, 10_001, 2.5, True, "big", "[24, 32]", [], [1], [1, 2, 3], [0, 1], [1, None]],
    "fit": ["stretch", None, 1],
    "features": ["pixel", "", None, True, 1, ["pixels"]],
    "deskew": [0, 1, "yes", None, "true", "pixels"],
    "test": [0, 1, -0.1, 1.5, "some", None, True, float("nan")],
    "validation": [-1, 1.5, "all", None, True, float("inf"), float("nan"), [1]],
    "seed": [-1, 2**63, 0.5, None, True, "x"],
    "skip_broken": [0, 1, "yes", None, "true"],
    "allow_duplicates": [0, "no", None],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_param_out_of_range_is_an_error_that_names_it(tmp_path: Path, key: str) -> None:
    for value in WRONG[key]:
        with pytest.raises(ValueError, match=rf"params.yaml: tensorize\.{key}.*expected") as error:
            load(tmp_path, **{key: value})
        assert str(error.value).count("tensorize.") == 1


def test_all_wrong_params_are_listed_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tensorize") as error:
        load(tmp_path, **{key: values[0] for key, values in WRONG.items()}, sise=1)
    for key in (*WRONG, "sise"):
        assert f"tensorize.{key}: " in str(error.value)
    assert "\n" not in str(error.value)


def strokes(raw: Path, channels: int, number: int = 40) -> Images:
    """Pictures with slanted strokes in `raw`, and their pixels, (N, C, 20, 16), in their order."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (number, 20, 16, channels), np.uint8)
    for i, image in enumerate(images):
        for row in range(2, 18):
            middle = 8 + round((row - 10) * (-0.3 + 0.15 * (i % 5)))
            image[row, middle - 1 : middle + 2] += np.uint8(150)
        path = raw / "train" / f"class {i // (number // 2)}" / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if channels == 1 else image).save(path)
    (raw / "dataset.json").write_text('{"format": "pictures"}')
    return images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deskewed", [False, True])
@pytest.mark.parametrize("kind", ["pixels", "gradients"])
def test_each_split_holds_the_features_that_the_params_ask_for(
    tmp_path: Path, kind: str, deskewed: bool, channels: int
) -> None:
    images = strokes(tmp_path / "raw", channels)
    plain = run(tmp_path / "raw", tmp_path / "plain", channels=channels)
    number_of = {image.tobytes(): i for i, image in enumerate(images)}
    upright = deskew(images) if deskewed else images
    assert (upright != images).any() == deskewed
    expected = gradient_features(upright) if kind == "gradients" else upright.reshape(40, -1)

    settings = {"channels": channels, "features": kind, "deskew": deskewed}
    splits = run(tmp_path / "raw", tmp_path / "out", **settings)
    for name, split in splits.items():
        assert split.spec == InputSpec(channels, 20, 16, "crop", deskewed, kind)
        numbers = [number_of[image.tobytes()] for image in plain[name].images]
        assert numbers
        np.testing.assert_array_equal(split.features, expected[numbers])
        assert split.labels.tolist() == plain[name].labels.tolist()


@pytest.mark.parametrize(
    ("kind", "deskewed", "stored"),
    [
        ("pixels", False, False),  # the features are the images
        ("pixels", True, True),
        ("gradients", False, True),
        ("gradients", True, True),
    ],
)
def test_the_test_split_alone_has_images_and_names_as_they_were_before_deskewing(
    tmp_path: Path, kind: str, deskewed: bool, stored: bool
) -> None:
    images = strokes(tmp_path / "raw", 1)
    splits = run(tmp_path / "raw", tmp_path / "out", features=kind, deskew=deskewed)
    for name in ("train", "validation"):
        assert splits[name].stored_images is None
        assert names(splits[name]) == []
    test = splits["test"]
    assert (test.stored_images is not None) == stored
    numbers = [int(Path(picture).stem) for picture in names(test)]
    np.testing.assert_array_equal(test.images, images[numbers])


@pytest.mark.parametrize("kind", ["pixels", "gradients"])
def test_neither_threads_nor_the_size_of_chunks_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    strokes(tmp_path / "raw", 1)
    found = []
    for threads, chunk_bytes in ((1, 2**20), (2, 1), (3, 320 * 7), (5, 320 * 3)):
        monkeypatch.setattr("stages.images.inputs.cpus", lambda threads=threads: threads)
        monkeypatch.setattr("stages.images.stored_images.CHUNK_BYTES", chunk_bytes)
        out = tmp_path / f"{threads} threads"
        run(tmp_path / "raw", out, features=kind, deskew=True)
        found.append(contents(out))
    assert found == found[:1] * 4


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
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
        assert re.search(r"train: 41 pictures, \d+ per second\n", text)
        assert "train 28, validation 2, test 10 images of 3 x 8 x 8, 2 classes\n" in text
    run(raw, tmp_path / "alone", channels=3, size=8, skip_broken=True)
    assert contents(out) == contents(tmp_path / "alone")
    assert set(contents(out)) == {*OUTS, "skipped.csv"}
    assert Split.load(out / "train").classes == ("狗", "猫 cat")
    skipped = (out / "skipped.csv").read_text(encoding="utf-8")
    assert skipped == "picture,reason\ntrain/狗/坏.png,an empty file\n"


def test_bad_params_are_a_one_line_error_and_leave_old_outputs(raw: Path, tmp_path: Path) -> None:
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
def test_a_stopped_run_leaves_no_files(
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


def test_only_the_training_images_are_copied_and_moved(tmp_path: Path, raw: Path) -> None:
    plain = run(raw, tmp_path / "plain")
    both = run(raw, tmp_path / "moved", shift=1)
    for name in ("validation", "test"):
        assert (tmp_path / "plain" / name).read_bytes()[-99:] == (
            tmp_path / "moved" / name
        ).read_bytes()[-99:]
        np.testing.assert_array_equal(both[name].images, plain[name].images)
    images = [moved(plain["train"].images, move) for move in moves_by(1)]
    np.testing.assert_array_equal(both["train"].images, np.concatenate(images))
    assert both["train"].labels.tolist() == plain["train"].labels.tolist() * 5


@forks
@pytest.mark.parametrize("count", [2, 3, 25])
def test_several_processes_write_the_bytes_of_one(
    with_test: Path, tmp_path: Path, count: int
) -> None:
    for name in ("train/cat/00.png", "train/dog/13.png", "test/dog/0.png"):
        (with_test / name).write_bytes(b"no picture")
    changes = {"features": "gradients", "shift": 1, "skip_broken": True, "size": [3, 5]}
    run(with_test, tmp_path / "alone", **changes)
    paths = [tmp_path / "out" / name for name in (*OUTS, "skipped.csv")]
    params = load(tmp_path, **changes)
    errors = in_processes(
        count, tmp_path / "meeting", lambda group: tensorize(params, with_test, *paths, group=group)
    )
    assert errors == [""] * count
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


@forks
@pytest.mark.parametrize(
    ("what", "rank"),
    [("write_rows", 1), ("create_split", 0), ("csv_text", 0)],  # the last when all rows are there
)
def test_a_process_that_fails_ends_all_and_the_older_files_stay(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, rank: int
) -> None:
    paths = [tmp_path / "out" / name for name in (*OUTS, "skipped.csv")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text("older")
    params = load(tmp_path)

    def work(group: ProcessGroup) -> None:
        if group.rank == rank:
            monkeypatch.setattr(f"stages.tensorize.{what}", full_disk)
        tensorize(params, raw, *paths, group=group)

    errors = in_processes(3, tmp_path / "meeting", work)
    assert sorted(errors) == ["another process has ended"] * 2 + ["the disk is full"]
    assert contents(tmp_path / "out") == {path.name: b"older" for path in paths}


def full_disk(*_: object, **__: object) -> NoReturn:
    raise OSError("the disk is full")


@forks
@pytest.mark.parametrize("count", [2, 3, 5])
def test_pictures_of_another_size_are_an_error_in_whatever_process(
    raw: Path, tmp_path: Path, count: int
) -> None:
    for value in range(12, 20):
        picture(raw / name_of(value), value, (2, 2))
    for value in range(6, 10):  # all that the second of five processes has, among others
        (raw / name_of(value)).write_bytes(b"no picture")
    paths = [tmp_path / "out" / name for name in (*OUTS, "skipped.csv")]
    params = load(tmp_path, skip_broken=True)
    errors = in_processes(
        count, tmp_path / "meeting", lambda group: tensorize(params, raw, *paths, group=group)
    )
    message = "found 2 x 2 pixels; expected 2 x 3 pixels as in the pictures before it; set"
    assert any(message in error for error in errors)
    assert all(message in error or error == "another process has ended" for error in errors)


def test_on_several_machines_torchrun_starts_the_processes(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int]] = []
    names = ("errors_told_to_torchrun", "joined_processes", "run_processes", "watched")
    torchs = SimpleNamespace(**dict.fromkeys(names, lambda *given: started.append(given)))
    monkeypatch.setitem(sys.modules, "stages.training.processes", torchs)  # without importing torch
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("PROCESSES", "3")
    load(tmp_path)
    main(tmp_path / "params.yaml", raw, *(tmp_path / "out" / name for name in (*OUTS, "skipped")))
    assert started == [("stages.tensorize", 3)]
    assert not (tmp_path / "out").exists()
