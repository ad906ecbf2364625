"""Jinja as Ansible's users know it: strict about undefined names, lazy about variables, native types.

`render_text` renders a whole file. `Scope` holds the variables of one host and renders values
(`render`), expressions (`evaluate`) and conditions (`condition`). The only importer of jinja2.
"""

from hawse.template.scope import (
    OMIT,
    NotYet,
    Promise,
    Scope,
    UndefinedVariable,
    View,
    check,
    render_text,
)

__all__ = ["OMIT", "NotYet", "Promise", "Scope", "UndefinedVariable", "View", "check", "render_text"]
