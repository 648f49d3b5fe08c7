"""The package's own exceptions."""


class InvalidInput(ValueError):
    """The person's input cannot be used; the message says why, in their words.

    Raised before anything large is decoded. Coglet passes it on as the text
    `InvalidInput: message`, so the message names no file path.
    """
