"""Clear the variables of a store's and its driver's frames in tracebacks: owners are secret.

Error trackers and Django's error page record the variables of all frames, among them the
parameters that were sent. The frames themselves stay, with their line numbers.
"""

import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def call_store(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call; an error from the store, or an interruption, leaves without its frames' variables."""
    handled = sys.exception()
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        clear_variables(error, handled)
        raise


def clear_variables(error: BaseException, handled: BaseException | None) -> None:
    """Clear the frames of the error and of its causes.

    Not those of the error that was `handled` before the call: they belong to the caller.
    """
    errors, seen = [error], {id(handled)}
    while errors:
        each = errors.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        errors += [one for one in (each.__cause__, each.__context__) if one is not None]
