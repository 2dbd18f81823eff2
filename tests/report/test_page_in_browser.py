"""The page in Debian's Chromium, driven by playwright; nothing leaves the machine."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from scripts.chromium import draw
from stages.images.features import deskew, gradient_features
from stages.images.preprocessing import Preprocessing
from stages.report.page import losses, render
from stages.report.page_data import PageData
from tests.images.test_features import SIZES, extremes, random_images
from tests.report.runs import HOSTILE, STROKES, Array, a_run, blocks, handwriting

DIGITS = [str(k) for k in range(10)]


Opener = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opener]:
    """opened(run) is a page in the browser, which must log nothing and request nothing."""
    events: list[str] = []
    contexts = []

    def open_page(run: PageData, **options: Any) -> Any:
        html = tmp_path / "report.html"
        html.write_text(render(run), encoding="utf-8", newline="\n")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: events.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("dialog", lambda dialog: events.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: events.append(f"request: {request.url[:200]}"))
        page.goto(html.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    of_others = [
        event for event in events if not event.startswith(("request: file:", "request: data:"))
    ]
    assert of_others == []


@pytest.fixture(scope="module")
def digits() -> PageData:
    """Handwriting, and a model that makes some mistakes."""
    images, labels = handwriting(400)
    return a_run(images, labels, mislabelled=0.2, deskewed=True, title="Handwriting")


def sent(image: Array) -> dict[str, Any]:
    channels, height, width = image.shape
    data = base64.b64encode(image.tobytes()).decode()
    return {"channels": channels, "height": height, "width": width, "data": data}


RECEIVED = "const of = (image) => ({ ...image, data: bytesOf(image.data) });"


def test_features_in_the_browser_equal_those_of_python_to_the_byte(
    opened: Opener, digits: PageData
) -> None:
    images: list[Array] = list(handwriting(60, seed=5)[0])
    for seed, (height, width) in enumerate(SIZES):
        for channels in (1, 3):
            images.extend(extremes(channels, height, width))
            images.extend(random_images(5, channels, height, width, seed))
    images += [*extremes(1, 1000, 3)[2:4], *random_images(2, 3, 150, 200, 1)]
    y, x = np.indices((28, 28))
    for slope in (3, -3, 8, -8):  # sheared by the maximum
        line = np.abs(x - 14 - slope * (y - 14)) < abs(slope)
        images.append(np.uint8(255) * line[None].astype(np.uint8))
    assert len(images) > 200
    found = opened(digits).evaluate(
        f"""(images) => {{
          {RECEIVED}
          const text = (bytes) => btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
          return images.map(of).map((image) => [
            text(gradientFeatures(image)), text(deskew(image).data)]);
        }}""",
        list(map(sent, images)),
    )
    for image, (features, upright) in zip(images, found, strict=True):
        assert base64.b64decode(features) == gradient_features(image[None]).tobytes(), image.shape
        assert base64.b64decode(upright) == deskew(image[None]).tobytes(), image.shape


def probabilities(run: PageData, images: Array) -> Array:
    upright = deskew(images) if run.deskew else images
    pixels = run.features == "pixels"
    seen = upright.reshape(len(images), -1) if pixels else gradient_features(upright)
    logits = (seen * (1 / 255)) @ run.weight.T.astype(np.float64) + run.bias
    p: Array = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p


def runs() -> list[PageData]:
    strokes, colours = handwriting(60), blocks(60, 5, (3, 20, 30))
    return [
        a_run(*strokes, deskewed=True),
        a_run(*strokes, features="pixels", deskewed=True),
        a_run(*strokes, features="pixels"),
        a_run(*colours),
        a_run(*colours, features="pixels"),
    ]


@pytest.mark.parametrize("nth", range(5))
def test_probabilities_and_reasons_in_the_browser_equal_those_of_python(
    opened: Opener, nth: int
) -> None:
    run = runs()[nth]
    images = random_images(40, *run.image_shape, seed=3)
    images[20:] = run.images[:20]
    found = opened(run).evaluate(
        f"""(images) => {{
          {RECEIVED}
          const model = readModel(JSON.parse(find("run").textContent));
          return images.map(of).map((image) => {{
            const seen = seenBy(model, image), p = probabilities(model, seen.features);
            const reasons = [null, 1].map((other) => {{
              const {{ values, bias, total }} = contributions(model, seen, 0, other);
              return [values.reduce((a, b) => a + b, bias), total];
            }});
            return [Array.from(p), ...reasons];
          }});
        }}""",
        list(map(sent, images)),
    )
    p = np.array([one[0] for one in found])
    assert p == pytest.approx(probabilities(run, images), abs=1e-9)
    log_p = np.log(np.maximum(probabilities(run, images), 1e-300))
    differences = np.stack([log_p[:, 0] - log_p.mean(1), log_p[:, 0] - log_p[:, 1]], axis=1)
    certain = log_p.min(1) > -600
    for which in (0, 1):  # the sum over the map, and the difference of the logits
        reasons = np.array([[reason[which] for reason in one[1:]] for one in found])
        assert reasons[certain] == pytest.approx(differences[certain], abs=1e-6)


def bars(page: Any) -> list[str]:
    texts: list[str] = page.locator("#bars .value").all_text_contents()
    return texts


def test_a_stroke_moves_the_bars_and_the_drawing_is_recognized(
    opened: Opener, digits: PageData
) -> None:
    page = opened(digits)
    found: list[str] = []
    for path in STROKES:
        page.keyboard.press("Escape") if found else page.click("#clear")
        assert page.inner_text("#prediction") == ""
        assert set(bars(page)) == {""}
        draw(page, path[:2])
        begun = bars(page)
        page.locator("#draw").press("Delete")
        draw(page, path)
        assert page.inner_text("#prediction") in DIGITS
        found.append(page.inner_text("#prediction"))
        if len(path) > 2:
            assert begun != bars(page)
    right = sum(one == other for one, other in zip(found, DIGITS, strict=True))
    assert right >= 9, found


def test_a_small_drawing_in_a_corner_is_placed_as_in_the_data_set(
    opened: Opener, digits: PageData
) -> None:
    page = opened(digits)
    draw(page, STROKES[3], scale=0.3)
    data = page.evaluate(
        "Array.from(find('seen').getContext('2d').getImageData(0, 0, 28, 28).data)"
    )
    ink = np.array(data).reshape(28, 28, 4)[..., 0]
    rows, columns = np.flatnonzero(ink.max(1) > 32), np.flatnonzero(ink.max(0) > 32)
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22
    centre = [(ink.sum(1 - axis) * np.arange(28)).sum() / ink.sum() for axis in (0, 1)]
    assert centre == pytest.approx([14, 14], abs=0.75)


def test_a_stroke_on_a_test_picture_starts_a_new_drawing(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    page.click("#clear")
    draw(page, STROKES[1])
    alone = bars(page)
    page.locator("#picks-right button").first.click()
    assert bars(page) != alone
    draw(page, STROKES[1])
    assert bars(page) == alone


def test_a_test_picture_is_classified_unchanged(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    assert page.inner_text("#prediction") in DIGITS
    worst = np.argsort(-losses(digits), kind="stable").tolist()
    wrong = [i for i in worst if digits.actual[i] != digits.predicted[i]]
    for nth, index in enumerate(wrong[:5]):
        page.locator("#picks-wrong button").nth(nth).click()
        assert page.inner_text("#prediction") == str(digits.predicted[index])
        page.evaluate(
            "new Promise(requestAnimationFrame)"
        )  # the reasons are drawn in the next frame
        assert page.input_value("#chosen") == str(digits.predicted[index])
        assert page.input_value("#other") == str(digits.actual[index])


def png(image: Array) -> bytes:
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_of_the_right_size_is_classified_unchanged(
    opened: Opener, digits: PageData, channels: int
) -> None:
    run = digits if channels == 1 else a_run(*blocks(60, 5, (3, 24, 40)), mislabelled=0.2)
    page = opened(run)
    for index in range(12):
        file = {"name": "a.png", "mimeType": "image/png", "buffer": png(run.images[index])}
        page.evaluate("find('prediction').textContent = ''")
        page.set_input_files("#file", file)
        page.locator("#prediction:not(:empty)").wait_for()
        assert page.inner_text("#prediction") == run.classes[run.predicted[index]]


def test_a_file_that_is_not_a_picture_is_reported_and_leaves_no_answer(
    opened: Opener, digits: PageData
) -> None:
    page = opened(digits)
    assert page.inner_text("#prediction") in DIGITS
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"none"})
    page.locator("#prediction-note", has_text="cannot read this file").wait_for()
    assert page.inner_text("#prediction") == ""
    assert set(bars(page)) == {""}
    assert page.is_hidden("#evidence")


PAINT = """({ images, smooth }) => images.map((text) => {
  const canvas = find("draw"), small = new OffscreenCanvas(28, 28);
  paint(small, { channels: 1, height: 28, width: 28, data: bytesOf(text) });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.dispatchEvent(new Event("input"));
  return find("prediction").textContent;
})"""


@pytest.mark.parametrize("smooth", [False, True])
def test_what_a_script_paints_into_the_field_is_classified_as_by_predict(
    opened: Opener, digits: PageData, smooth: bool
) -> None:
    texts = [base64.b64encode(image.tobytes()).decode() for image in digits.images]
    found = opened(digits).evaluate(PAINT, {"images": texts, "smooth": smooth})
    same = np.mean(np.array(found, int) == digits.predicted)
    assert same == 1 if not smooth else same > 0.98


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_picture_of_another_size_is_scaled_as_by_pillow(
    opened: Opener, digits: PageData, fit: str
) -> None:
    page = opened(digits)
    y, x = np.indices((53, 80))
    smooth = np.stack([3 * x, 4 * y, x + y], axis=-1).astype(np.uint8)
    for height, width in ((28, 28), (32, 20), (60, 90)):
        for mode, channels in (("RGB", 3), ("L", 1), ("RGBA", 3)):
            picture = Image.fromarray(smooth).convert(mode)
            expected = np.asarray(Preprocessing(channels, (height, width), fit)(picture))
            rgba = base64.b64encode(picture.convert("RGBA").tobytes()).decode()
            found = page.evaluate(
                "([text, ...size]) => Array.from("
                "fitted(opaque(bytesOf(text), ...size.slice(0, 3)), size[3]).data)",
                [rgba, 53, 80, channels, {"shape": [channels, height, width], "fit": fit}],
            )
            planes = expected.reshape(height, width, channels).transpose(2, 0, 1).ravel()
            assert np.array(found).tolist() == planes.tolist()


def listed(page: Any) -> list[str]:
    names: list[str] = page.locator("#pictures .picture > .name").all_text_contents()
    return names


def cell(page: Any, actual: str, predicted: str) -> Any:
    return page.locator(f"[data-actual='{actual}'][data-predicted='{predicted}']")


def expected_names(run: PageData, actual: int, predicted: int) -> list[str]:
    of = np.flatnonzero((run.actual == actual) & (run.predicted == predicted))
    order = of[np.argsort(-losses(run)[of], kind="stable")]
    return [run.pictures[i] for i in order.tolist()]


def test_a_cell_lists_exactly_its_pictures_worst_first(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    counts = digits.confusion_counts
    assert (counts > 0).sum() > 15
    for actual in range(10):
        for predicted in range(10):
            one = cell(page, str(actual), str(predicted))
            number = int(counts[actual, predicted])
            assert one.inner_text() == (str(number) if number else "\u00b7")
            if actual != predicted and (number or actual == 0):
                one.click()
                assert one.get_attribute("aria-selected") == "true"
                assert listed(page) == expected_names(digits, actual, predicted)
                assert page.locator("#pictures canvas").count() == number
    page.click("#all-mistakes")
    assert len(listed(page)) == int((digits.actual != digits.predicted).sum())


def test_arrow_keys_and_enter_work_like_the_mouse(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    counts = digits.confusion_counts * (1 - np.eye(10, dtype=np.int64))
    actual, predicted = divmod(int(counts.argmax()), 10)
    cell(page, "0", "0").focus()
    for _ in range(actual):
        page.keyboard.press("ArrowDown")
    for _ in range(predicted):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert listed(page) == expected_names(digits, actual, predicted)
    page.keyboard.press("Control+Home")
    focused = "[document.activeElement.dataset.actual, document.activeElement.dataset.predicted]"
    assert page.evaluate(focused) == ["0", "0"]
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == ["0", "0"]


def test_a_listed_picture_can_be_tried(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    index = next(i for i in range(400) if digits.actual[i] != digits.predicted[i])
    actual, predicted = int(digits.actual[index]), int(digits.predicted[index])
    cell(page, str(actual), str(predicted)).click()
    page.locator("#pictures button").first.click()
    assert page.inner_text("#prediction") == str(predicted)
    page.select_option("#other", str((predicted + 1) % 10))
    assert "as probable as" in page.inner_text("#odds")


def test_the_table_of_classes_can_be_sorted_by_any_column(opened: Opener, digits: PageData) -> None:
    page = opened(digits)
    recall = "#classes-table tbody td:nth-child(4)"

    def shown() -> list[float]:
        return [float(text.split()[0]) for text in page.locator(recall).all_text_contents()]

    button = page.get_by_role("button", name="recall", exact=True)
    button.click()
    assert shown() == sorted(shown())
    button.click()
    assert shown() == sorted(shown(), reverse=True)
    assert len(set(shown())) > 3


def test_hostile_names_do_nothing_in_the_browser(opened: Opener) -> None:
    run = a_run(
        *blocks(120, len(HOSTILE), (1, 16, 16)), names=HOSTILE, mislabelled=0.2, title=HOSTILE[0]
    )
    assert (run.actual != run.predicted).any()
    page = opened(run)
    page.click("#all-mistakes", force=True) if page.is_visible("#all-mistakes") else None
    for one in page.locator("#matrix [role=gridcell]").all():
        one.click()
        assert page.locator("#pictures-title").inner_text()
    for button in page.locator(".picks button, #bars button").all():
        button.click()
    for element in ("chosen", "other"):
        page.select_option(f"#{element}", "0")
    assert page.locator("img, script[src], iframe, b:not(.interval b)").count() == 0
    actual = page.locator("#matrix [role=gridcell]").evaluate_all(
        "all => all.map(e => e.dataset.actual)"
    )
    assert list(dict.fromkeys(actual)) == list(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hostile_file_names_do_nothing_in_the_browser(opened: Opener, digits: PageData) -> None:
    names = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(len(digits.pictures))]
    page = opened(replace(digits, pictures=names))
    page.click("#all-mistakes")
    assert set(listed(page)) <= set(names)
    assert {text.rstrip("0123456789") for text in listed(page)} == set(HOSTILE)
    assert page.locator("img, script[src], iframe, b:not(.interval b)").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious_or_critical(
    opened: Opener, digits: PageData, scheme: str, viewport: dict[str, int]
) -> None:
    page = opened(digits, color_scheme=scheme, viewport=viewport)
    page.locator("#picks-wrong button").first.click()
    page.locator("#matrix .wrong:not(.none)").first.click()
    for details in page.locator("summary").all():
        details.click()
    violations = Axe().run(page).response["violations"]
    assert [
        (violation["id"], [node["target"] for node in violation["nodes"]])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ] == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_reasons_for_a_class_are_in_view_after_a_click_on_its_bar(
    opened: Opener, digits: PageData, viewport: dict[str, int]
) -> None:
    page = opened(digits, viewport=viewport, reduced_motion="reduce")
    page.get_by_title("Why 7?").click()
    assert page.input_value("#chosen") == "7"
    box = page.locator("#evidence").bounding_box()
    assert 0 <= box["y"] <= viewport["height"] - box["height"]


def test_everything_can_be_reached_and_used_with_the_keyboard(
    opened: Opener, digits: PageData
) -> None:
    page = opened(digits)
    part = "document.activeElement.closest('[id]')?.id"
    reached: set[str | None] = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        now = page.evaluate(part)
        if now not in reached and now in ("bars", "picks-wrong", "pictures"):
            page.evaluate("find('prediction').textContent = find('chosen').value = ''")
            page.keyboard.press("Enter")
            answer = (
                page.input_value("#chosen") if now == "bars" else page.inner_text("#prediction")
            )
            assert answer in DIGITS, now
        reached.add(now)
    assert reached >= {
        *("draw", "clear", "bars", "chosen", "other", "picks-right", "picks-wrong", "file"),
        *("matrix", "all-mistakes", "pictures", "classes-place"),
    }


def test_in_print_the_results_stay_and_the_controls_go(opened: Opener, digits: PageData) -> None:
    page = opened(digits, color_scheme="dark", viewport={"width": 680, "height": 960})
    page.emulate_media(media="print")
    for gone in ("nav", "#clear", "#file", "#all-mistakes", "#picks-right"):
        assert page.is_hidden(gone), gone
    for shown in ("#accuracy", "#prediction", "#evidence", "#matrix", "#curves", "#card-text"):
        assert page.is_visible(shown), shown
    drawing, evidence = (page.locator(one).bounding_box() for one in ("#draw", "#evidence"))
    assert drawing["x"] + drawing["width"] < evidence["x"], "side by side"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("k", "shape"), [(2, (1, 28, 28)), (10, (3, 32, 32)), (100, (1, 12, 12)), (3, (3, 224, 160))]
)
def test_the_page_works_for_any_number_of_classes_and_shape_of_pictures(
    opened: Opener, k: int, shape: tuple[int, int, int]
) -> None:
    run = a_run(*blocks(60 if shape[1] > 100 else 6 * k + 60, k, shape), mislabelled=0.2)
    page = opened(run, viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert page.locator("#matrix [role=gridcell]").count() == k * k
    assert page.locator("#bars li").count() == min(k, 10)
    assert page.locator("#draw").count() == (1 if shape[0] == 1 else 0)
    assert page.inner_text("#prediction") in run.classes
    page.locator("#picks-right button").last.click()
    for actual, predicted in np.argwhere(run.confusion_counts * (1 - np.eye(k)) > 0)[:5].tolist():
        cell(page, run.classes[actual], run.classes[predicted]).click()
        assert listed(page) == expected_names(run, actual, predicted)
    assert page.locator(".template").count() == min(k, 100)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(color_scheme="light")
    page.emulate_media(media="print")
    assert page.is_visible("#accuracy")


def test_the_page_works_for_a_run_without_mistakes_and_without_validation(opened: Opener) -> None:
    images, labels = handwriting(50)
    run = a_run(images, labels, deskewed=True)
    run = replace(run, predicted=run.actual, history=[(1, 0.5, None, None)])
    page = opened(run)
    assert "no mistake" in page.inner_text("#pictures-note")
    assert page.locator("#curves figure").count() == 1
