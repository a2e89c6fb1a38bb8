"""Settings of the documentation: Sphinx, numpydoc, sphinx-gallery. Nothing is downloaded."""

import os
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx_gallery.sorting import ExplicitOrder

import sklearn_featx
from sklearn_featx import exceptions

project = "sklearn_featx"
author = "The sklearn_featx developers"
copyright = "The sklearn_featx developers, BSD-3-Clause"  # noqa: A001 # Sphinx's name
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "api/generated/backreferences", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
# A build on a machine without a display, and one thread per library: examples run one by one.
os.environ.setdefault("MPLBACKEND", "agg")

release = version = sklearn_featx.__version__
default_role = "literal"
smartquotes = False  # "avg" is code, also in the type of a parameter

# The button copies code, without prompts and output.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# -- pages ------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# -- reference --------------------------------------------------------------------------------
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings name the types
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# -- gallery ----------------------------------------------------------------------------------
ORDER = [
    "first_search.py",
    "plot_which_layer.py",
    "plot_all_layers.py",
    "plot_image_and_table.py",
    "plot_depths.py",
    "plot_heat_maps.py",
    "plot_why.py",
    "plot_map_of_images.py",
    "plot_mistakes.py",
    "plot_dicom_patients.py",
    "plot_volumes_and_slides.py",
    "plot_several_photos.py",
    "*",
    "plot_dask.py",
]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(plot_|first_search)",
    "ignore_pattern": r"^_",
    "within_subsection_order": ExplicitOrder(ORDER),
    "doc_module": ("sklearn_featx",),
    "backreferences_dir": "api/generated/backreferences",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1,
    "write_computation_times": False,  # its page fetches scripts from other hosts
    "copyfile_regex": r".*\.rst",
}

# -- appearance -------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_featx {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "get_started": [], "changelog": []}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "show_prev_next": False,
    # All pages but auto_examples/*, whose code is wide.
    "secondary_sidebar_items": {"[!a]**": ["page-toc"], "a[!u]**": ["page-toc"]},
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}


class LinkedNames(SphinxTransform):
    """Code that is a public name links to its page, in Markdown, docstrings and examples."""

    default_priority = 700

    def apply(self):
        """Put a reference around each such name that is in no link or title."""
        for node in list(self.document.findall(nodes.literal)):
            name = node.astext()
            homes = (m for m in (sklearn_featx, exceptions) if name in m.__all__)
            # The module of the exceptions has no page of its own.
            home = None if name == "exceptions" else next(homes, None)
            linked = (nodes.reference, nodes.title, addnodes.pending_xref)
            if home is not None and not any(isinstance(up, linked) for up in above(node)):
                target = {"reftarget": f"{home.__name__}.{name}", "refdoc": self.env.docname}
                kind = {"refdomain": "py", "reftype": "obj", "refexplicit": True, "refwarn": True}
                node.replace_self(addnodes.pending_xref("", node.deepcopy(), **target, **kind))


def above(node):
    """Yield the nodes around a node: in Markdown, emphasis may lie between a link and its code."""
    while node.parent is not None:
        node = node.parent
        yield node


def link_pages_of_the_gallery(app, docname, content):  # noqa: ARG001
    """Links to ``examples/``, which exists in a checkout, lead to the pages made from it."""
    link = re.compile(r"(?<=\]\()((?:\.\./)?)examples/(?:([a-z]\w*)\.py)?(?=\))")
    content[0] = link.sub(
        lambda found: f"{found[1]}auto_examples/{found[2] or 'index'}.rst", content[0]
    )


def escape_trailing_underscores(app, what, name, obj, options, lines):  # noqa: ARG001
    """``(n_features_in_,)`` in a shape is a name of Python, not a link of reStructuredText."""
    code_or_name = re.compile(r"(``[^`]*``|`[^`]*`)|(?<=[a-z])_(?=[,)])")
    lines[:] = [code_or_name.sub(lambda found: found[1] or r"\_", line) for line in lines]


def setup(app):
    app.add_transform(LinkedNames)
    app.connect("source-read", link_pages_of_the_gallery)
    app.connect("autodoc-process-docstring", escape_trailing_underscores, priority=900)
