"""Lines of a rendered template, traced back."""

import pytest

from hawse.stack.document import template_line

TEMPLATE = """\
services:
{% for n in names %}
  {{ n }}:
    image: x
    tty: true
{% endfor %}
  db:
    image: redis:{{ tag }}
    tty: true
"""
RENDERED = """\
services:
  a:
    image: x
    tty: true
  b:
    image: x
    tty: true
  db:
    image: redis:7
    tty: true
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [(1, 1), (2, 3), (3, 4), (5, 3), (6, 4), (7, 5), (8, 7), (9, 8), (10, 9), (99, None)],
)
def test_lines(line: int, expected: int | None) -> None:
    assert template_line(TEMPLATE, RENDERED, line) == expected


def test_a_line_that_two_places_could_have_made_is_not_guessed() -> None:
    template = "{% for a in b %}\n- {{ a }}\n{% endfor %}\n{% for a in c %}\n- {{ a }}\n{% endfor %}\n"
    assert template_line(template, "- 1\n", 1) is None
