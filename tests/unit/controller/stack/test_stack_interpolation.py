"""Every form of `${VAR}` in a Compose file."""

import pytest

from hawse.stack.interpolation import interpolate
from hawse_agent.errors import InputError

VARIABLES = {"NAME": "web", "EMPTY": "", "TAG": "1.2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$NAME", "web"),
        ("$NAME:$TAG", "web:1.2"),
        ("a${NAME}b", "awebb"),
        ("cost: $$5 and $${NAME}", "cost: $5 and ${NAME}"),
        ("${GONE:-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${GONE-x}", "x"),
        ("${NAME:-x}", "web"),
        ("${GONE:-}", ""),
        ("${NAME:+yes}", "yes"),
        ("${EMPTY:+yes}", ""),
        ("${EMPTY+yes}", "yes"),
        ("${GONE+yes}", ""),
        ("${NAME:?needed}", "web"),
        ("${EMPTY?needed}", ""),
        ("${GONE:-${NAME}-${TAG}}", "web-1.2"),
        ("${GONE:-${ALSO_GONE:-deep}}!", "deep!"),
        ("${NAME:-${GONE}}", "web"),
        ("${GONE:-a$$b}", "a$b"),
        ("${GONE:-http://x:80/?q=1}", "http://x:80/?q=1"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${GONE}", "variable GONE is not set"),
        ("$GONE", "variable GONE is not set"),
        ("${GONE:?set me}", "variable GONE is required: set me"),
        ("${EMPTY:?}", "variable EMPTY is required"),
        ("${GONE?set ${NAME}}", "variable GONE is required: set web"),
        ("${NAME", "invalid interpolation: a $ that begins neither $NAME nor ${NAME}"),
        ("${NAME:-x", "invalid interpolation: a ${ that is never closed"),
        ("${}", "invalid interpolation: a $ that begins neither $NAME nor ${NAME}"),
        ("$1", "invalid interpolation: a $ that begins neither $NAME nor ${NAME}"),
        ("${NAME!x}", "invalid interpolation: a $ that begins neither $NAME nor ${NAME}"),
        ("5$", "invalid interpolation: a $ that begins neither $NAME nor ${NAME}"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        interpolate(text, VARIABLES)
    assert caught.value.message == message
