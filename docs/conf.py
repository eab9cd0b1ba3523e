"""How the documentation is built: ``make docs``."""

import sys
import warnings
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
warnings.filterwarnings("ignore", module="lightning|transformers|torch")

project = "regrow"
author = "The regrow authors"
project_copyright = author
release = version = installed("regrow")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "method_pages",
    "drawings",
    "records",
    "study_pages",
    "corruption_pages",
]
exclude_patterns = ["_build"]
nitpicky = True
suppress_warnings = ["ref.python"]  # two rooms may call a class alike; annotations name it only
nitpick_ignore_regex = [
    # Other libraries' names, and the private ones of annotations: nothing is fetched at build time.
    (
        r"py:.*",
        r"(torch|nn|os|pathlib|Tensor|Optimizer|numpy|collections|typing|lightning|transformers)\b.*",
    ),
    (r"py:.*", r"(contextlib|matplotlib)\b.*"),
    (r"py:.*", r"Exchanges|Role|Scope|OnGrow|Path|Columns"),
    (r"py:.*", r"(np|npt|sklearn|BaseSparseSelector)\b.*"),
    (r"py:.*", r"Floats|Indices|Importance|Report|Task|ACTIVATIONS|Axes|Figure"),
    (r"py:.*", r"regrow.training.batch.SourceT|regrow.segmentation.survey.Result|Damaged"),
    (r"py:.*", r"regrow.engine.others.(Watched|Watcher)|(http|random)\..*"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"regrow {release}"
html_static_path = ["_static", "../src/regrow/lab/parts.css"]
html_css_files = ["parts.css", "regrow.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
