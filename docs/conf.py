"""Configuration of the documentation: ``make docs`` builds it into ``docs/_build/html``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from analog_samson import __version__

project = "analog-samson"
author = "the analog-samson developers"
copyright = author
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_pages"]
exclude_patterns = ["_build", "pictures"]

# Pages
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
pygments_style, pygments_dark_style = "friendly", "monokai"

# Formulas become MathML, which browsers draw themselves: no script, no request to the network.
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_update_mathjax = False
myst_heading_anchors = 3

# Notebooks are executed by hand and by a test, and their outputs are committed.
nb_execution_mode = "off"

# Objects
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented_params"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_use_ivar = True
