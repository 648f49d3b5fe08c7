"""The page for people: the files that a browser gets from the box, and the rules for them.

`static/` holds plain ES modules and one style sheet; nothing is built. `files` reads them once.
`router.http.pages` serves them.
"""
