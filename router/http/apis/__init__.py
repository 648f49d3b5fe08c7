"""The three HTTP APIs for predictions: `native` (the app's own), `cog` with `cog_health`, and
`replicate` with its `replicate_` modules. For the operator there are `operations` and `events`.
`streams` and `downloads` serve the URLs that answers of all APIs hold.

A fourth API is one more module here: handlers that call `router.http.new_prediction` and then
`Predictions.create`, and an `add_routes` that `router.app` calls before that of `native`. Its paths
go into `router.http.openapi_apis`, and the shape of its errors into `router.http.errors`.
"""
