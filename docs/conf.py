"""The documentation's settings for Sphinx.

Why Sphinx: docs/README.md.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from attnbench import __version__  # noqa: E402 - the two folders above come first

project = "attnbench"
author = "The attnbench developers"
version = release = __version__
language = "en-GB"

extensions = ["myst_parser", "sphinx_copybutton", "maker"]
exclude_patterns = ["_build", "README.md"]
nitpicky = True
smartquotes = False  # it would make a dash of the two hyphens of an option
highlight_language = "text"
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

html_theme = "furo"
html_title = "attnbench"
html_static_path = ["_static"]
html_css_files = ["attnbench.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#8cc4ee", "color-brand-content": "#8cc4ee"},
}
