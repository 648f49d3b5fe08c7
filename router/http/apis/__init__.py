"""The HTTP APIs: `native` (the app's own), `cog`, `replicate` with its `replicate_` modules, and
`operations` with `events` (for the operator). `streams` and `downloads` serve the URLs that answers
of all APIs hold.

One more API is one more module here: handlers that call `router.http.new_prediction` and then
`Predictions.create`, and an `add_routes` that `router.app` calls.
"""
