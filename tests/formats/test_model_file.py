import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear, log_softmax

from stages.formats.model_file import LogisticRegression, pixels, use_threads

SHAPE, CLASSES = (3, 4, 5), ("a", "b", "c")


def random_model(seed: int = 0) -> LogisticRegression:
    model = LogisticRegression(SHAPE, CLASSES)
    generator = torch.Generator().manual_seed(seed)
    model.weight.normal_(generator=generator)
    model.bias.normal_(generator=generator)
    return model


def random_images(n: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=generator)


def test_pixels_are_scaled_to_one_in_float64() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    x = pixels(images)
    assert x.dtype == torch.float64
    assert x.flatten().tolist() == pytest.approx([0, 0.2, 1], abs=1e-15)
    assert images.tolist() == [[[[0, 51, 255]]]]


def test_knows_nothing_at_first() -> None:
    log_p = LogisticRegression(SHAPE, CLASSES)(random_images())
    assert log_p.shape == (7, 3)
    assert log_p.dtype == torch.float64
    assert torch.allclose(log_p, torch.full((7, 3), -math.log(3), dtype=torch.float64))


def test_is_a_linear_layer_and_a_softmax() -> None:
    model, images = random_model(), random_images()
    x = images.flatten(1).double() / 255
    expected = log_softmax(linear(x, model.weight, model.bias), dim=1)
    assert torch.allclose(model(images), expected, rtol=0, atol=1e-12)


def test_save_and_load_are_inverse_in_float32(tmp_path: Path) -> None:
    model = random_model()
    model.save(tmp_path / "model.safetensors", {"learning_rate": 0.1})
    loaded = LogisticRegression.load(tmp_path / "model.safetensors")
    assert (loaded.image_shape, loaded.classes) == (SHAPE, CLASSES)
    assert torch.equal(loaded.weight, model.weight.float().double())
    assert torch.equal(loaded.bias, model.bias.float().double())
    loaded.save(tmp_path / "elsewhere" / "again", {"learning_rate": 0.1})
    again, first = tmp_path / "elsewhere" / "again", tmp_path / "model.safetensors"
    assert again.read_bytes() == first.read_bytes()


def test_save_refuses_weights_beyond_float32_and_writes_nothing(tmp_path: Path) -> None:
    model = random_model()
    model.weight[0, 0] = 1e39
    with pytest.raises(ValueError, match="beyond float32: lower train.learning_rate"):
        model.save(tmp_path / "model.safetensors", {})
    assert list(tmp_path.iterdir()) == []


def test_load_names_a_file_that_is_missing_or_broken(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="model.safetensors: no such file; `dvc repro"):
        LogisticRegression.load(path)
    random_model().save(path, {})
    whole = path.read_bytes()
    for broken in (b"", whole[:-1], whole.replace(b'"weight"', b'"wieght"'), b"\0" * 100):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="model.safetensors: not a model") as caught:
            LogisticRegression.load(path)
        assert "\n" not in str(caught.value)


def test_uses_one_thread_where_there_is_little_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    small = (100, (1, 28, 28), tuple(map(str, range(10))))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(2)
        use_threads(100, (3, 224, 224), tuple(map(str, range(100))))
        assert torch.get_num_threads() == 2
        with monkeypatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "2")
            use_threads(*small)
        assert torch.get_num_threads() == 2
        use_threads(*small)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
