"""Errors that a user can fix, as opposed to bugs of this code.

The scripts print the message of a `UserError` or OSError and exit with status 1; any
other exception is a bug and is shown with its stack trace.
"""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Input that cannot be used; its message says what, where and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist."""


def reason(error: BaseException) -> str:
    """The message of `error`, in one line of at most 200 characters."""
    said = getattr(error, "strerror", None) or str(error).strip()
    return (said or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def mended_by(
    advice: str, kinds: tuple[type[Exception], ...] = (ValueError,)
) -> Iterator[None]:
    """Turns errors of `kinds` into a `UserError` with `advice`.

    For calls that can fail only because of user input.
    """
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{reason(error)}; {advice}") from error
