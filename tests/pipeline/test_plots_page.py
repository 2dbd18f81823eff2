from pathlib import Path
from typing import Any

from scripts.plots_page import TEMPLATE, plots_page
from tests.pipelines import run

DRAWN = """() => [...document.querySelectorAll(".vega-embed svg.marks")].map(
  (plot) => [...plot.querySelectorAll(".role-mark path")].some((p) => p.getBBox().width > 9))"""


def test_the_plots_page_template_is_regenerated_from_the_installed_vega() -> None:
    assert TEMPLATE.read_text(encoding="utf-8") == plots_page(), "run `make plots-page`"


def test_dvc_plots_show_draws_every_plot_without_the_network(pipeline: Path, browser: Any) -> None:
    with (pipeline / "data/predictions.csv").open("a", encoding="utf-8") as predictions:
        predictions.write("a picture,a dog,Äpfel,1.5,0.7\n")  # a confusion, of which it has none
    run(pipeline, "dvc", "plots", "show")
    html = pipeline / "dvc_plots/index.html"
    context = browser.new_context(offline=True)
    page = context.new_page()
    events: list[str] = []
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("request", lambda request: events.append(request.url))
    page.goto(html.as_uri())
    plots = html.read_text(encoding="utf-8").count("vegaEmbed('#")
    page.locator(".vega-embed svg.marks").nth(plots - 1).wait_for()
    assert plots == 4
    assert page.evaluate(DRAWN) == [True] * plots
    assert (
        page.evaluate("[...document.images].map((image) => image.naturalWidth > 0)") == [True] * 3
    )
    context.close()
    assert [event for event in events if not event.startswith("file:")] == []
