"""Vega, Vega-Lite and Vega-Embed -> the template of `dvc plots show`, which then loads nothing.

DVC's own template loads the three from the web. This one has them inlined, from the package
vl-convert-python, so its bytes depend on that package's version alone. `.dvc/config` names it.
"""

from pathlib import Path

import vl_convert

TEMPLATE = Path(__file__).parent.parent / ".dvc/plots/page.html"
VEGA_LITE = "5.21"  # DVC's plots are written for version 5
GLOBAL = "window.vegaEmbed = vegaEmbed;"  # the function that they call

# DVC replaces {refresh_tag} and {plot_divs}. It would put its own scripts in place of {scripts}.
HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
<style>
body { margin: 2rem; font-family: sans-serif; display: flex; flex-wrap: wrap; gap: 2rem; }
</style>
<script>
"""
BODY = """\
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def plots_page() -> str:
    """The template."""
    return f"{HEAD}{vl_convert.javascript_bundle(GLOBAL, VEGA_LITE)}{BODY}"


if __name__ == "__main__":
    TEMPLATE.write_text(plots_page(), encoding="utf-8", newline="\n")
