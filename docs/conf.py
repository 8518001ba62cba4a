"""Sphinx's configuration: Markdown pages, API from docstrings, a gallery that runs the examples.

Nothing is fetched while the pages are built.
"""

import os
import shutil
import sys
from pathlib import Path

from skad import __version__

HERE = Path(__file__).parent
EXAMPLES = HERE / "_build" / "examples"
# A copy, because the examples write their pictures where they run.
shutil.copytree(HERE.parent / "examples", EXAMPLES, dirs_exist_ok=True)
# They import from demo.py, which lies beside them.
sys.path.insert(0, str(EXAMPLES))
os.environ.setdefault("MPLBACKEND", "Agg")

project = "skad"
author = "The skad developers"
copyright = "The skad developers, BSD-3-Clause"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
# Not our pages: nothing is fetched to link to them.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(sklearn|numpy|skimage)\..*")]
suppress_warnings = ["config.cache"]  # the gallery's configuration holds a function

myst_heading_anchors = 3
autosummary_generate = True
# numpydoc lists parameters and attributes; methods have their own entries below them.
numpydoc_show_class_members = False
autodoc_default_options = {
    "members": True,
    "inherited-members": "BaseEstimator,ClassifierMixin,_SetOutputMixin,Sequence,object",
    # Their texts are scikit-learn's, and refer to pages that only scikit-learn's site has.
    "exclude-members": "get_metadata_routing,set_fit_request,set_score_request,set_split_request",
}
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
default_role = "code"

sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py",
    # The other scripts need a folder of images, a cluster or minutes.
    "ignore_pattern": r"^(?!plot_|make_report)",
    # For the one page that draws nothing itself: the head of a report.
    "default_thumb_file": str(HERE / "images" / "report.png"),
    "write_computation_times": False,  # their table would load scripts from elsewhere
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "min_reported_time": 1000,
    "capture_repr": ("_repr_html_", "__repr__"),
}

html_theme = "pydata_sphinx_theme"
html_title = "skad"
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
}
# Pages with nothing below them: the text takes the room of the navigation.
ALONE = ("index", "getting_started", "user_guide", "changelog", "development", "contributing")
html_sidebars = {page: [] for page in ALONE}
