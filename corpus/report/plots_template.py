"""Write the page with which `dvc plots show` needs no network: `python -m corpus.report.plots_template PATH`.

DVC's own page loads Vega from a CDN. Ours holds the scripts, nearly a megabyte of them, so it is made at installation
instead of being kept in git. `plots.html_template` in `.dvc/config` names it, relative to `.dvc/`.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from corpus.cli import guarded
from corpus.errors import UserError

# DVC replaces {refresh_tag} and {plot_divs}. The scripts among the latter call vegaEmbed while the page is being read.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Plots</title>
{refresh_tag}
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; }
body > div { margin-bottom: 2rem; overflow-x: auto; }
</style>
<script>(() => { SCRIPTS })();</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


@functools.cache
def plots_page() -> str:
    """The page with the scripts of Vega, Vega-Lite and Vega-Embed in it."""
    import vl_convert

    scripts = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed; window.vega = vega; window.vegaLite = vegaLite;"
    )
    return PAGE.replace("SCRIPTS", scripts.replace("</script", r"<\/script"))


def write_plots_page(path: Path) -> None:
    """Write the page, whole or not at all; not again where it already is the same."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder: run this beside .dvc, or name another PATH")
    page = plots_page()
    if not path.exists() or path.read_text("utf-8") != page:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(page, "utf-8")
        partial.replace(path)


def main(arguments: list[str]) -> int:
    """Entry point. Returns the exit code."""

    def write() -> None:
        if len(arguments) != 1:
            raise UserError("name one file to write, for example .dvc/offline_plots.html")
        write_plots_page(Path(arguments[0]))

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
