"""The package's own exceptions."""


class InvalidInput(ValueError):
    """The input cannot be used; the message says why.

    Raised before anything large is decoded. Coglet passes it on as the text
    `InvalidInput: message`, so the message contains no file path.
    """
