"""Owners are secret: no variable of a store's or driver's frame is left in a traceback.

Tools that collect errors store the variables of all frames, and so does Django's page of an error;
there is what was sent. The frames themselves stay, with their lines.
"""

import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def call_store(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call; whatever is raised, by the store or by what interrupts it, has no variables then."""
    handled = sys.exception()
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        clear_variables(error, handled)
        raise


def clear_variables(error: BaseException, handled: BaseException | None) -> None:
    """Clear the frames that have been left of the error and of what it came of.

    But not of what was `handled` before: those frames are others'.
    """
    errors, seen = [error], {id(handled)}
    while errors:
        each = errors.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        errors += [one for one in (each.__cause__, each.__context__) if one is not None]
