"""The package's exceptions."""


class InvalidInput(ValueError):
    """The input cannot be used, now or on a retry.

    The message is for the person who sent it: it names the input, what it must be and what it was,
    and never a path of this machine. A server in front of the package recognises the class by its
    name and answers 422.
    """
