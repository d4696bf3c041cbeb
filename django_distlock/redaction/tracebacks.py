"""Clear the variables of a store's and its driver's frames in tracebacks: owners are secret.

Error trackers and Django's error page record the variables of all frames, among them the
parameters that were sent. The frames themselves stay, with their line numbers.
"""

import sys
import traceback


class ClearedVariables:
    """A block whose errors, and interruptions, leave without the variables of the frames in it."""

    __slots__ = ("_handled",)

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        if error is not None:
            clear_variables(error, self._handled)


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
