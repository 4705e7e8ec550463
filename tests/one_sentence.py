"""What a mistake is answered with: one sentence that names what is wrong."""

import pytest

ERRORS = (TypeError, ValueError, AttributeError, FileNotFoundError)


def assert_one_sentence(call, parts, kinds=ERRORS):
    """A call raises one of these kinds of error, in one line that holds all parts."""
    with pytest.raises(kinds) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "\n" not in message and "Tracer" not in message
