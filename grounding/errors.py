"""What a caller can do wrong."""


class InvalidInput(ValueError):
    """An input that no retry will make right.

    The message is for the person who sent it: it names the input, what it must be and what it
    was, and never a path of this machine. Servers in front of the package recognise the class by
    its name and answer 422.
    """
