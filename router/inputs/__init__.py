"""Turns what a client sent into checked values and spooled files.

It is imported by the HTTP APIs, which create predictions, by `router.predictions` and by
`router.composition`. Who deletes an upload is listed in `file_uploads`.
"""
